"""Learning rates as closed forms of the iteration; no state, so that an edited option takes effect on resume.

    lr(i) = base_lr * warmup(i) * schedule(i)                i = 1, 2, ...: the iteration being computed

One owner writes the rate: `LearningRate.apply`. Schedules are functions of the iteration alone; torch's schedulers are
the reference: at iteration i ours equals torch's after i - 1 steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from traiNNer.types import Stateful
from traiNNer.utils.registry import SCHEDULERS

Schedule = Callable[[int, float], float]
"""(iteration from 1, base rate) to a factor on the base rate."""


@runtime_checkable
class ObservesValidation(Stateful, Protocol):
    """A schedule that follows a validation's metric: a factor that validations change, with a state to save."""

    monitor: str
    """The metric, such as `val/loss` or `val/psnr`."""
    mode: Literal["min", "max"]
    """Whether lower or higher is better."""
    patience: int
    """Validations without improvement after which the rate is reduced."""

    def __call__(self, iteration: int, base_lr: float) -> float:
        """The factor on the base rate."""
        ...

    def observe(self, value: float) -> bool:
        """Take note of a validation; whether it reduced the rate."""
        ...


def constant(iteration: int, base_lr: float) -> float:
    """The schedule of a file without one."""
    return 1.0


def build_schedule(options: Mapping[str, Any] | None, total_iter: int) -> Schedule:
    """Build `{"type": NAME, **parameters}`; None gives a constant rate.

    Raises:
        ConfigError: unknown type or parameter, or a value outside its range.
    """
    return constant if options is None else SCHEDULERS.build(options, total_iter)


class LearningRate:
    """The one owner of an optimizer's learning rate.

    Args:
        optimizer: its groups carry their base rate under `initial_lr`.
        schedule: factor by iteration.
        warmup_iter: length of the linear warm-up in iterations; 0 or less for none. The factor is i / warmup_iter,
            exactly 1 at i == warmup_iter.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule, warmup_iter: int = 0) -> None:
        self._optimizer, self._schedule, self._warmup_iter = optimizer, schedule, warmup_iter

    def value(self, iteration: int, base_lr: float) -> float:
        """The rate at an iteration, from 1, for a group with this base rate."""
        warmup = min(1.0, iteration / self._warmup_iter) if self._warmup_iter > 0 else 1.0
        return base_lr * warmup * self._schedule(iteration, base_lr)

    def apply(self, iteration: int) -> None:
        """Write the rate of this iteration into every parameter group."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.value(iteration, group["initial_lr"])

    @property
    def schedule(self) -> Schedule:
        """The factor by iteration."""
        return self._schedule

    def observe(self, metrics: Mapping[str, float]) -> bool:
        """Tell the schedule of a validation, if it follows one; whether that reduced the rate."""
        schedule = self._schedule
        if not isinstance(schedule, ObservesValidation) or schedule.monitor not in metrics:
            return False
        return schedule.observe(metrics[schedule.monitor])

    @property
    def current(self) -> float:
        """The rate of the first parameter group, as last written."""
        return self._optimizer.param_groups[0]["lr"]
