"""Losses, one per file: the function with its formula first, then the module that stores its options.

The keyword parameters of a loss's `forward` say what it needs; the model hands it exactly that.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from traiNNer.losses.base import Loss
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import LOSSES

INPUTS = ("output", "target", "lq", "ema_output", "real_logits", "fake_logits", "current_iter")
"""What a loss's forward may ask for.

Images are (B, 3, H, W) float32: net_g's output and that of its moving average, not clamped, GT and LQ in [0, 1]. Logits
are what net_d returns for GT and for the output. The iteration counts from 1.
"""

ENTRY_KEYS = ("loss_weight", "name")
"""Keys of an entry of `train.losses` that belong to the entry, not to the loss."""


def build_loss(options: Mapping[str, Any]) -> Loss:
    """Build one loss from an entry of `train.losses`.

    Args:
        options: `{"type": NAME, "loss_weight": FLOAT, **parameters}`, and optionally `name`, its label in the log.

    Returns:
        A module whose call returns the *unweighted* value, a scalar tensor. The entry's weight is its attribute
        `loss_weight` (1.0 if absent), the label its attribute `label`.

    Raises:
        ConfigError: unknown type or parameter, or a value outside its range.
    """
    loss_weight = options.get("loss_weight", 1.0)
    if isinstance(loss_weight, bool) or not isinstance(loss_weight, (int, float)):
        raise ConfigError(Problem(key="loss_weight", message=f"found {loss_weight!r}; accepted: a number"))
    if loss_weight < 0:
        message = f"found {loss_weight:g}; a negative weight (the enlarged LQ as target) is not supported yet"
        raise ConfigError(Problem(key="loss_weight", message=message))
    loss: Loss = LOSSES.build({key: value for key, value in options.items() if key not in ENTRY_KEYS})
    loss.loss_weight = float(loss_weight)
    loss.label = str(options.get("name") or LOSSES.canonical(options["type"]))
    return loss


def build_losses(entries: Sequence[Mapping[str, Any]]) -> dict[str, Loss]:
    """All entries of `train.losses` by label: `name`, else the type, then type_2, ...; weight 0 is left out."""
    losses: dict[str, Loss] = {}
    seen: Counter[str] = Counter()
    for entry in entries:
        loss = build_loss(entry)
        seen[loss.label] += 1
        if seen[loss.label] > 1 and entry.get("name"):
            raise ConfigError(
                Problem(key="name", message=f"the label {loss.label!r} is used twice; accepted: labels of their own")
            )
        label = loss.label if seen[loss.label] == 1 else f"{loss.label}_{seen[loss.label]}"
        if loss.loss_weight != 0:
            losses[label] = loss
    return losses


def needs(loss: Loss) -> frozenset[str]:
    """The inputs that a loss's `forward` takes, a subset of `INPUTS`."""
    return frozenset(inspect.signature(loss.forward).parameters)


def check_forward(factory: Any) -> None:
    """Refuse a loss whose forward asks for something that the model does not have; run at registration.

    Raises:
        TypeError: naming the unknown input.
    """
    names = [name for name in inspect.signature(factory.forward).parameters if name != "self"]
    unknown = [name for name in names if name not in INPUTS]
    if unknown:
        raise TypeError(
            f"{factory.__name__}.forward asks for {', '.join(unknown)}; a loss can have {', '.join(INPUTS)}"
        )
