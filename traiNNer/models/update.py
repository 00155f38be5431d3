"""The end of a player's transaction: its gradients are judged, and its optimizer steps."""

from __future__ import annotations

import torch
from torch import Tensor

from traiNNer.models.player import Player
from traiNNer.types import StepObserver
from traiNNer.utils import dist
from traiNNer.utils.out_of_memory import ending_the_run


def update(
    network: str,
    player: Player,
    record: dict[str, Tensor],
    current_iter: int,
    *,
    observer: StepObserver | None = None,
    finite: Tensor | None = None,
) -> Tensor:
    """Step where everything is finite, and add what is to be logged to the record of the losses' values.

    Args:
        network: its name in the log.
        player: the network, whose gradients are complete.
        record: device scalars of its losses.
        current_iter: the iteration, counted from 1.
        observer: told of the gradients before the update.
        finite: bool device scalar, whether the step before it was; None if there is none.

    Returns:
        Whether this step, and the one before it, were finite in all processes; a bool device scalar.

    Raises:
        RunError: the optimizer ran out of memory, and may have changed something already.
    """
    with ending_the_run(f"the optimizer's step of {network}"):
        norm = player.gradient_norm()
        if observer is not None:
            observer.before_update(network, norm, current_iter)
        losses_finite = torch.isfinite(torch.stack(list(record.values()))).all()
        checks = torch.stack([losses_finite, losses_finite & torch.isfinite(norm)]).float()
        record["losses_finite"], own = dist.all_reduce_min_(checks)
        record[f"grad_norm/{network}"] = norm.detach()
        if player.loss_scale is not None:
            record[f"loss_scale/{network}"] = player.loss_scale.value
        finite = own > 0 if finite is None else finite & (own > 0)
        player.commit(norm, finite, own > 0)
    return finite
