"""The weight of a loss as a pure function of the iteration: nothing is counted, nothing needs saving."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationInfo, field_validator

from traiNNer.utils.fields import iterations, option

ScheduleType: TypeAlias = Literal["linear", "cosine", "step", "smoothstep", "polynomial", "exponential", "cyclical"]
Phase: TypeAlias = Literal["started", "reached its target", "disabled"]

ITERATION_KEYS = ("start_iter", "target_iter", "disable_after", "discriminator_start_iter")
"""Keys of a schedule that hold an iteration; the first part of each of its `knots` is another."""

_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
_ACCEPTED = 'a whole number of iterations, at least 0, such as 20000, "20k" or "30%" (of total_iter)'


def absolute(value: Any, total_iter: int) -> Any:
    """`"30%"` as the iteration it means in a run of `total_iter`, rounded; anything else as it is."""
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        return value
    return round(total_iter * float(match[1]) / 100)


def _iteration(value: Any) -> Any:
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        if float(value.rstrip("% ")) > 100:
            raise ValueError("a percentage between 0% and 100%")
        raise ValueError(f"{_ACCEPTED}; a percentage needs total_iter")
    try:
        number = iterations(value)
    except ValueError:
        raise ValueError(_ACCEPTED) from None
    if number < 0:
        raise ValueError(_ACCEPTED)
    return number


_Written: TypeAlias = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([kK]|\s*%)$")]
Iteration: TypeAlias = Annotated[int, BeforeValidator(_iteration, json_schema_input_type=_Written)]
Knot: TypeAlias = Annotated[tuple[Iteration, float], Strict(False)]


class WeightSchedule(BaseModel):
    """Weight w(i) of a loss at iteration i, counted from 1, in float64.

    With w0 = `loss_weight`, w1 = `target_weight` and p = clamp((i - start_iter) / (target_iter - start_iter), 0, 1):

        0                                   i < start_iter, or i > disable_after
        w1                                  i >= target_iter
        step         w0
        linear       w0 + (w1 - w0) p
        cosine       w0 + (w1 - w0) (1 - cos(pi p)) / 2
        smoothstep   w0 + (w1 - w0) (3 p^2 - 2 p^3)
        polynomial   w0 + (w1 - w0) p^power
        exponential  w0 (w1 / w0)^p
        cyclical     `cycles` equal cycles, each a linear ramp over `ratio` of it, then w1 (Fu et al., "Cyclical
                     Annealing Schedule", NAACL 2019)
        knots        linear between knots, constant outside of them

    Validating it raises pydantic.ValidationError with every mistake.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    loss_weight: float = option(
        unit="factor", text="Weight of the loss in the total; negative: the target is the enlarged LQ image."
    )
    start_iter: Iteration = option(0, unit="iterations", text="First iteration at which the loss acts.")
    target_iter: Iteration | None = option(
        None, unit="iterations", text="Iteration at which target_weight is reached; default: start_iter."
    )
    target_weight: float | None = option(None, unit="factor", text="Final weight; default: loss_weight.")
    disable_after: Iteration | None = option(
        None, unit="iterations", text="Last iteration at which the loss acts; default: it acts to the end."
    )
    schedule_type: ScheduleType = option("linear", unit="name", text="How loss_weight becomes target_weight.")
    power: float = option(2.0, unit="exponent", gt=0, text="Of schedule_type polynomial.")
    cycles: int = option(4, unit="cycles", ge=1, text="Of schedule_type cyclical.")
    ratio: float = option(0.5, unit="share", gt=0, le=1, text="Part of a cycle in which the weight rises.")
    knots: Annotated[tuple[Knot, ...], Strict(False)] | None = option(
        None,
        unit="list",
        min_length=1,
        text="[iteration, weight] pairs; the weight is linear between them. Replaces the target keys.",
    )
    discriminator_start_iter: Iteration | None = option(
        None, unit="iterations", text="First iteration at which net_d trains (adversarial losses); default: start_iter."
    )

    @field_validator("target_iter", "disable_after")
    @classmethod
    def _not_before_the_start(cls, value: int | None, info: ValidationInfo) -> int | None:
        start = info.data.get("start_iter")
        if value is not None and start is not None and value < start:
            raise ValueError(f"at least start_iter, {start}")
        return value

    @field_validator("target_weight")
    @classmethod
    def _of_the_same_sign(cls, value: float | None, info: ValidationInfo) -> float | None:
        weights = (value or 0.0, info.data.get("loss_weight", 0.0))
        if min(weights) < 0 < max(weights):
            raise ValueError("a weight of the sign of loss_weight (the sign says what the target is)")
        return value

    @field_validator("schedule_type")
    @classmethod
    def _between_positive_weights(cls, value: ScheduleType, info: ValidationInfo) -> ScheduleType:
        start = info.data.get("loss_weight", 1.0)
        end = info.data.get("target_weight", 1.0)
        if value == "exponential" and (start <= 0 or (end is not None and end <= 0)):
            raise ValueError("exponential only between two positive weights, loss_weight and target_weight")
        return value

    @field_validator("knots")
    @classmethod
    def _in_order(cls, value: tuple[Knot, ...] | None, info: ValidationInfo) -> tuple[Knot, ...] | None:
        if value is None:
            return None
        targets = [name for name in ("target_iter", "target_weight") if info.data.get(name) is not None]
        if targets or info.data.get("schedule_type", "linear") != "linear":
            raise ValueError("knots without target_iter, target_weight and schedule_type, which they replace")
        if any(later[0] <= earlier[0] for earlier, later in pairwise(value)):
            raise ValueError("knots whose iterations rise")
        weights = [info.data.get("loss_weight", 0.0), *(weight for _, weight in value)]
        if min(weights) < 0 < max(weights):
            raise ValueError("knots whose weights have the sign of loss_weight")
        return value

    @property
    def scheduled(self) -> bool:
        """Whether any key but `loss_weight` was written."""
        return bool(self.model_fields_set - {"loss_weight"})

    @property
    def negative(self) -> bool:
        """Whether its weights are negative: the target is the enlarged LQ image, and their size counts."""
        return min(self.loss_weight, self.target_weight or 0.0, *(weight for _, weight in self.knots or ())) < 0

    @property
    def last_change(self) -> int:
        """Iteration from which the weight stays what it is, unless the loss is disabled."""
        if self.knots:
            return max(self.start_iter, self.knots[-1][0])
        return self.start_iter if self.target_iter is None else self.target_iter

    @property
    def corners(self) -> set[int]:
        """Iterations around which the weight may begin or cease to be 0, apart from those that begin a cycle."""
        ends = () if self.disable_after is None else (self.disable_after,)
        return {self.start_iter, self.last_change, *(at for at, _ in self.knots or ()), *ends}

    @property
    def trains_discriminator_from(self) -> int:
        """First iteration at which net_d trains for an adversarial loss."""
        return self.start_iter if self.discriminator_start_iter is None else self.discriminator_start_iter

    def value(self, iteration: int) -> float:
        """The weight at an iteration, counted from 1."""
        if iteration < self.start_iter or self.ended(iteration):
            return 0.0
        if self.knots:
            return _between_knots(self.knots, iteration)
        start, end = self.loss_weight, self.loss_weight if self.target_weight is None else self.target_weight
        if iteration >= self.last_change:
            return end
        done, span = iteration - self.start_iter, self.last_change - self.start_iter
        if self.schedule_type == "exponential":
            return _inside(start, end, start * (end / start) ** (done / span))
        return _part_of_the_way(start, end, self._shape(done, span))

    def values(self, iterations: Iterable[int]) -> NDArray[np.float64]:
        """The weights at many iterations, for plots; each is exactly `value` of it."""
        return np.fromiter((self.value(int(iteration)) for iteration in iterations), np.float64)

    def ended(self, iteration: int) -> bool:
        """Whether the loss is disabled for good."""
        return self.disable_after is not None and iteration > self.disable_after

    def vanishes(self, total_iter: int | None = None) -> bool:
        """Whether the weight is 0 at every iteration of a run.

        Between two of its corners a weight is 0 throughout, or nowhere but at the corners.
        """
        corners = {1, total_iter or 1, *self.corners}
        near = {corner + step for corner in corners for step in (-1, 0, 1)}
        return not any(self.value(at) for at in near if at >= 1 and (total_iter is None or at <= total_iter))

    def phase_at(self, iteration: int) -> Phase | None:
        """What begins at exactly this iteration; a run's first iteration begins nothing."""
        if iteration == 1:
            return None
        if self.disable_after is not None and iteration == self.disable_after + 1:
            return "disabled"
        if iteration == self.start_iter:
            return "started"
        return "reached its target" if iteration == self.last_change and not self.ended(iteration) else None

    def _shape(self, done: int, span: int) -> float:
        """How far the way from the first weight to the last is gone, after this many iterations of the ramp."""
        progress = done / span
        match self.schedule_type:
            case "cosine":
                return (1 - math.cos(math.pi * progress)) / 2
            case "smoothstep":
                return 3 * progress**2 - 2 * progress**3
            case "polynomial":
                return progress**self.power
            case "cyclical":
                in_cycle = done * self.cycles % span / span  # in whole numbers: a cycle begins with its first weight
                return min(1.0, in_cycle / self.ratio)
            case "step":
                return 0.0
            case _:
                return progress


def _between_knots(knots: tuple[Knot, ...], iteration: int) -> float:
    """Linear interpolation, the first weight before the first knot and the last one after the last."""
    if iteration <= knots[0][0]:
        return knots[0][1]
    for (left, low), (right, high) in pairwise(knots):
        if iteration < right:
            return _part_of_the_way(low, high, (iteration - left) / (right - left))
    return knots[-1][1]


def _part_of_the_way(start: float, end: float, share: float) -> float:
    return end if share == 1 else _inside(start, end, start + (end - start) * share)


def _inside(start: float, end: float, weight: float) -> float:
    """The weight, unless its rounding lies outside of those that it is between."""
    return min(max(weight, min(start, end)), max(start, end))
