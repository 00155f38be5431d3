"""A loss whose weight follows a schedule over the iterations."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.losses.base import Loss, Value
from traiNNer.utils.weight_schedule import WeightSchedule

__all__ = ["IterativeLossWrapper", "WeightSchedule"]


class IterativeLossWrapper(nn.Module):
    """Multiplies a loss by the weight of its schedule; where that is 0, the loss is not evaluated.

    It keeps no state: the weight is a function of the iteration, so a resumed run needs nothing but its number.

    Args:
        loss: returns the unweighted value, a scalar or a dict of named scalars.
        schedule: gives the weight.
    """

    def __init__(self, loss: Loss, schedule: WeightSchedule) -> None:
        super().__init__()
        self.loss, self.schedule = loss, schedule
        self.label = loss.label

    @property
    def loss_weight(self) -> float:
        """The base weight of its entry."""
        return self.schedule.loss_weight

    def weight(self, current_iter: int) -> float:
        """The weight at an iteration, counted from 1."""
        return self.schedule.value(current_iter)

    def forward(self, *inputs: Any, current_iter: int, **named_inputs: Any) -> Value:
        """The weighted value: a scalar, or a dict of them for a loss that returns one; a scalar 0 at weight 0.

        Args:
            inputs: what the loss takes.
            current_iter: the iteration, counted from 1.
            named_inputs: what the loss takes, by name.
        """
        weight = self.schedule.value(current_iter)
        if weight == 0:
            return torch.zeros((), device=_device_of(*inputs, *named_inputs.values()))
        if "current_iter" in needs(self.loss):
            named_inputs["current_iter"] = current_iter
        value = self.loss(*inputs, **named_inputs)
        return value * weight if isinstance(value, Tensor) else {name: part * weight for name, part in value.items()}


def needs(loss: nn.Module) -> frozenset[str]:
    """The inputs that a loss's `forward` takes and uses, a subset of `losses.INPUTS`."""
    return frozenset(inspect.signature(loss.forward).parameters) - getattr(loss, "unused", frozenset())


def _device_of(*inputs: Any) -> torch.device:
    return next((each.device for each in inputs if isinstance(each, Tensor)), torch.device("cpu"))
