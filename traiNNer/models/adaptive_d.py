"""Pausing the discriminator while the generator falls behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from traiNNer.utils import dist


class AdaptiveDiscriminator:
    """net_d rests at an iteration whose adversarial loss raises the moving average by more than `threshold`.

        average(i) = decay average(i - 1) + (1 - decay) loss(i)
        rest if average(i) - average(i - 1) > (threshold - 1) |average(i - 1)|

    traiNNer-redux's rule, for losses that are positive; there the average starts at 0, so that net_d rests for some
    dozen iterations at first. Here it starts at the first loss, and losses below 0 (wgan, hinge) are judged alike.

    Args:
        decay: of the average, per iteration.
        threshold: ratio of two averages.
        device: where the average is kept.
    """

    def __init__(self, *, decay: float, threshold: float, device: torch.device) -> None:
        self._decay, self._threshold = decay, threshold
        self._average = torch.full((), torch.nan, device=device)

    def rests(self, loss: Tensor) -> bool:
        """Take note of the generator's adversarial loss, a detached scalar; whether net_d rests now.

        A loss that is not finite changes nothing.
        """
        loss = dist.mean(loss)
        before = torch.where(self._average.isnan(), loss, self._average)
        after = self._decay * before + (1 - self._decay) * loss
        self._average = torch.where(after.isfinite(), after, self._average)
        rises = after - before > (self._threshold - 1) * before.abs()
        return bool(rises)  # host-device synchronization: it spares net_d's passes

    def state_dict(self) -> dict[str, Any]:
        """The average, NaN before the first loss."""
        return {"average": self._average.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self._average = state_dict["average"].to(self._average.device)
