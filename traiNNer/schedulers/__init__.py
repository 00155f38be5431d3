"""Learning rates as closed forms of the iteration; no state, so that an edited option takes effect on resume.

    lr(i) = base_lr * warmup(i) * schedule(i)                i = 1, 2, ...: the iteration being computed

One owner writes the rate: `LearningRate.apply`. Schedules are functions of the iteration alone; torch's schedulers are
the reference: at iteration i ours equals torch's after i - 1 steps. Only ReduceLROnPlateau remembers something: what
the validations said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from pydantic import AfterValidator, Field

from traiNNer.types import Stateful
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.fields import Iterations
from traiNNer.utils.registry import SCHEDULERS

Schedule = Callable[[int, float], float]
"""(iteration from 1, base rate) to a factor on the base rate."""


@runtime_checkable
class ObservesValidation(Stateful, Protocol):
    """A schedule that also follows a metric; its state belongs into the checkpoint.

    It is asked for in iterations and told in validations: `observe` once after each one that measured `monitor`.
    """

    monitor: str
    """The metric it wants to hear of, such as `val/psnr`."""
    mode: Literal["min", "max"]
    """Direction in which that metric improves."""
    patience: int
    """Validations without improvement that pass before the rate is reduced."""

    def __call__(self, iteration: int, base_lr: float) -> float:
        """Factor on the base rate, as of every schedule."""
        ...

    def observe(self, value: float) -> bool:
        """Take the metric of a validation; True when the rate is reduced for it."""
        ...


@runtime_checkable
class CyclesMomentum(Protocol):
    """A schedule that also prescribes the momentum: `momentum`, or the first of `betas`, of every parameter group."""

    def momentum(self, iteration: int) -> float | None:
        """The momentum at an iteration, from 1; None when the optimizer's own is to stay."""
        ...


def _ascending(milestones: list[int]) -> list[int]:
    if milestones != sorted(milestones):
        raise ValueError("milestones in ascending order")
    return milestones


Length: TypeAlias = Annotated[Iterations, Field(ge=1)]
"""A number of iterations, at least 1."""
Milestones: TypeAlias = Annotated[
    list[Length],
    AfterValidator(_ascending),
    Field(description="iterations after which the rate is multiplied by gamma"),
]
RestartWeights: TypeAlias = Annotated[
    list[Annotated[float, Field(gt=0)]] | None,
    Field(description="factor on the rate from each restart on; 1 each unless given"),
]


def restart_weights_for(restarts: Sequence[int], weights: list[float] | None, key: str) -> list[float]:
    """The factor of each restart.

    Raises:
        ConfigError: there are more or fewer than restarts, which the option `key` lists.
    """
    if weights is None:
        return [1.0] * len(restarts)
    if len(weights) != len(restarts):
        message = f"found {len(weights)} for {len(restarts)} {key}; accepted: as many as {key}"
        raise ConfigError(Problem(key="restart_weights", message=message))
    return weights


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
        self._optimizer, self.schedule, self._warmup_iter = optimizer, schedule, warmup_iter
        self.factors: dict[str, float] = {}
        """What automations multiply the scheduled rate by, by name."""

    def scheduled(self, iteration: int, base_lr: float) -> float:
        """The rate at an iteration, from 1, for a group with this base rate, by warm-up and schedule alone."""
        warmup = min(1.0, iteration / self._warmup_iter) if self._warmup_iter > 0 else 1.0
        return base_lr * warmup * self.schedule(iteration, base_lr)

    def value(self, iteration: int, base_lr: float) -> float:
        """The scheduled rate, multiplied by the factors."""
        return math.prod(self.factors.values(), start=self.scheduled(iteration, base_lr))

    def apply(self, iteration: int) -> None:
        """Write the rate of this iteration into every parameter group, and the momentum if the schedule cycles it."""
        momentum = self.schedule.momentum(iteration) if isinstance(self.schedule, CyclesMomentum) else None
        for group in self._optimizer.param_groups:
            group["lr"] = self.value(iteration, group["initial_lr"])
            if momentum is not None and "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif momentum is not None:
                group["momentum"] = momentum

    def observe(self, metrics: Mapping[str, float], iteration: int) -> str:
        """Tell the schedule of the validation after an iteration, if it follows one; by how much it reduced the rate.

        The text is empty if it did not.
        """
        if not isinstance(self.schedule, ObservesValidation):
            return ""
        before = self.value(iteration, self.base)  # by now an automation may have set another factor
        if self.schedule.monitor in metrics:
            self.schedule.observe(metrics[self.schedule.monitor])
        self.apply(iteration)
        reason = f"no improvement in {self.schedule.monitor}"
        return f"from {before:.4g} to {self.current:.4g}: {reason}" if self.current < before else ""

    @property
    def base(self) -> float:
        """The base rate of the first parameter group."""
        return self._optimizer.param_groups[0]["initial_lr"]

    @property
    def current(self) -> float:
        """The rate of the first parameter group, as last written."""
        return self._optimizer.param_groups[0]["lr"]
