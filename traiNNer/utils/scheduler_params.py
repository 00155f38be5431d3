"""How the weights of losses move from some of them to others: options, and multipliers as a function of progress."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)

from traiNNer.utils.fields import Iterations, option

OBSERVATION_KEYS = {
    "min_epochs_before_adapt": "min_observations_before_adapt",
    "warmup_epochs": "warmup_observations",
}
"""Keys of loops that validate once per epoch, and what they are here."""

ITERATION_KEYS = ("min_iterations_before_adapt", "warmup_iterations")
"""Options that hold an iteration; the first part of each point of `schedule` is another."""


def _labels(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("a label, or a list of labels")
    return tuple(cast("Sequence[Any]", value))


def _of_their_own(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels) or not labels or not all(labels):
        raise ValueError("a label, or a list of labels that differ")
    return labels


Labels: TypeAlias = Annotated[
    tuple[str, ...],
    BeforeValidator(_labels, json_schema_input_type=str | list[str]),
    AfterValidator(_of_their_own),
]
Weight: TypeAlias = Annotated[float, Field(ge=0)]
Point: TypeAlias = Annotated[
    tuple[Annotated[Iterations, Field(ge=0)], Annotated[float, Field(ge=0, le=1)]], Strict(False)
]


def _curve(name: str, progress: float) -> float:
    """How far the weights are at a progress in [0, 1]; exactly 0 and 1 at its ends."""
    if name == "cosine":
        return (1 - math.cos(math.pi * progress)) / 2
    return math.expm1(3 * progress) / math.expm1(3) if name == "exponential" else progress


class SchedulerParams(BaseModel):
    """Options of a `FlexibleLossScheduler`. An observation is a validation.

    Validating it raises pydantic.ValidationError with every mistake.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    enabled: bool = option(True, unit="switch", text="Move the weights; false: they stay as the losses have them.")
    source_loss: Labels = option(unit="label", text="Label of the loss whose weight goes down, or a list of labels.")
    target_loss: Labels = option(unit="label", text="Label of the loss whose weight goes up, or a list of labels.")
    source_components: Mapping[str, bool] | None = option(
        None,
        unit="switches",
        text="What exactly follows the source's multiplier: LABEL, or LABEL/COMPONENT of a loss that has components. "
        "Default: the labels of source_loss.",
    )
    target_components: Mapping[str, bool] | None = option(
        None, unit="switches", text="What follows the target's multiplier. Default: the labels of target_loss."
    )
    static_components: Mapping[str, Weight] = option(
        default_factory=dict[str, float],
        unit="factors",
        text="LABEL or LABEL/COMPONENT with a multiplier that stays as it is.",
    )
    initial_weight_source: Weight = option(1.0, unit="factor", text="The source's multiplier at the start.")
    initial_weight_target: Weight = option(0.0, unit="factor", text="The target's multiplier at the start.")
    final_weight_source: Weight = option(0.3, unit="factor", text="The source's multiplier at the end of the move.")
    final_weight_target: Weight = option(0.7, unit="factor", text="The target's multiplier at the end of the move.")
    max_weight_target: float = option(
        0.8, unit="factor", gt=0, text="The target's multiplier is never higher; what is cut goes to the source."
    )
    adaptation_trigger: Literal["plateau", "increase", "iteration"] = option(
        "plateau",
        unit="name",
        text="What moves the weights. plateau: `patience` observations without improvement. increase: the smoothed "
        "value is worse than at the last observation by more than min_delta. iteration: `schedule`.",
    )
    patience: Literal["auto"] | Annotated[int, Field(ge=1)] = option(
        5,
        unit="observations",
        text="Observations without improvement that are a plateau. auto: by the noise of the values, so that a curve "
        "which improves by min_delta per observation is taken for one in fewer than 1 of 20 runs.",
    )
    min_delta: float = option(0.001, unit="see threshold_mode", ge=0, text="Smallest change that is an improvement.")
    threshold_mode: Literal["rel", "abs"] = option(
        "rel", unit="name", text="Whether min_delta is a share of the best value or a difference."
    )
    transition_step: float = option(0.1, unit="progress", ge=0.001, le=1, text="Progress of one adaptation.")
    adaptive_step: bool = option(
        True, unit="switch", text="Smaller steps towards the end: max(0.05, transition_step * (1 - progress))."
    )
    min_observations_before_adapt: int = option(
        10, unit="observations", ge=0, text="So many observations have passed before the first adaptation."
    )
    warmup_observations: int = option(
        5, unit="observations", ge=0, text="The first observations, which are not looked at."
    )
    min_iterations_before_adapt: Iterations = option(
        0, unit="iterations", ge=0, text="So many iterations have passed before the first adaptation."
    )
    warmup_iterations: Iterations = option(
        0, unit="iterations", ge=0, text="Observations up to this iteration are not looked at."
    )
    max_consecutive_adaptations: int = option(
        10,
        unit="adaptations",
        ge=1,
        text="After so many adaptations without an improvement between them, a pause of `patience` observations.",
    )
    monitor_metric: str = option(
        "target_loss",
        unit="name",
        min_length=1,
        text="What is watched: target_loss or source_loss, unweighted; val_loss; or a metric such as val/psnr.",
    )
    use_ema: bool = option(True, unit="switch", text="Smooth the watched value by a moving average.")
    ema_beta: float = option(
        0.9, unit="factor per observation", ge=0, lt=1, text="Decay of the moving average of the watched value."
    )
    transition_schedule: Literal["linear", "cosine", "exponential"] = option(
        "linear",
        unit="name",
        text="From progress q to multipliers: linear q; cosine (1 - cos(pi q)) / 2; exponential "
        "(e^(3q) - 1) / (e^3 - 1).",
    )
    schedule: Annotated[tuple[Point, ...], Strict(False)] | None = option(
        None,
        unit="list",
        min_length=1,
        text="Of adaptation_trigger iteration: [iteration, progress] pairs; progress is linear between them, from 0 at "
        "iteration 0 unless the first pair says otherwise. Iterations may be percentages of total_iter.",
    )

    @model_validator(mode="before")
    @classmethod
    def _observations(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        values = dict(cast("Mapping[str, Any]", data))
        for old, new in OBSERVATION_KEYS.items():
            if old in values and new not in values:
                values[new] = values.pop(old)
        return values

    @field_validator("source_components", "target_components")
    @classmethod
    def _something(cls, value: Mapping[str, bool] | None) -> Mapping[str, bool] | None:
        if value is not None and not any(value.values()):
            raise ValueError("LABEL: true, or LABEL/COMPONENT: true, for something that is to move")
        return value

    @field_validator("target_loss")
    @classmethod
    def _apart(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        both = set(value) & set(info.data.get("source_loss", ()))
        if both:
            raise ValueError(f"another label than those of source_loss, {', '.join(sorted(both))} is one")
        return value

    @field_validator("initial_weight_target", "final_weight_target")
    @classmethod
    def _some_weight(cls, value: float, info: ValidationInfo) -> float:
        source = str(info.field_name).replace("target", "source")
        if value == 0 == info.data.get(source):
            raise ValueError(f"more than 0, as {source} is 0")
        return value

    @field_validator("max_weight_target")
    @classmethod
    def _not_below_the_start(cls, value: float, info: ValidationInfo) -> float:
        start = info.data.get("initial_weight_target", 0.0)
        if value < start:
            raise ValueError(f"at least initial_weight_target, {start}")
        return value

    @field_validator("min_delta")
    @classmethod
    def _positive_for_auto(cls, value: float, info: ValidationInfo) -> float:
        if value == 0 and info.data.get("patience") == "auto":
            raise ValueError("more than 0, as patience is auto: it is the improvement that is not to be missed")
        return value

    @field_validator("threshold_mode")
    @classmethod
    def _possible(cls, value: str, info: ValidationInfo) -> str:
        if value == "rel" and info.data.get("min_delta", 0.0) >= 1:
            raise ValueError("abs, as min_delta is 1 or more and no loss can improve by its whole value")
        return value

    @field_validator("schedule")
    @classmethod
    def _rising(
        cls, value: tuple[tuple[int, float], ...] | None, info: ValidationInfo
    ) -> tuple[tuple[int, float], ...] | None:
        if value is None:
            if info.data.get("adaptation_trigger") == "iteration":
                raise ValueError("[iteration, progress] pairs, as adaptation_trigger is iteration")
            return None
        if any(before[0] >= after[0] or before[1] > after[1] for before, after in pairwise(value)):
            raise ValueError("pairs of rising iterations and progress that does not fall")
        return value

    @property
    def sources(self) -> list[str]:
        """What has the source's multiplier: labels, or label/component."""
        return _chosen(self.source_components, self.source_loss)

    @property
    def targets(self) -> list[str]:
        """What has the target's multiplier."""
        return _chosen(self.target_components, self.target_loss)

    @property
    def left_alone(self) -> list[str]:
        """Components, as label/component, that are written as false: their multiplier is 1, whatever the label's."""
        mappings = (self.source_components or {}, self.target_components or {})
        written = [(name, chosen) for mapping in mappings for name, chosen in mapping.items() if "/" in name]
        return [name for name, chosen in written if not chosen and name not in (*self.sources, *self.targets)]

    def losses_of(self, monitor: str) -> tuple[str, ...]:
        """The labels that `source_loss` or `target_loss` stands for; nothing for another name."""
        if monitor not in ("source_loss", "target_loss"):
            return ()
        return self.source_loss if monitor == "source_loss" else self.target_loss

    def multipliers(self, progress: float) -> tuple[float, float]:
        """Multipliers of source and target at a progress in [0, 1]; their sum is that of the start.

        Each is initial + (final - initial) s, s by `transition_schedule`. Then what the target has above
        `max_weight_target` goes to the source, and both are scaled so that their sum stays; the cap holds afterwards
        too. The target never goes further than at the end of the move.
        """
        source, target = self._shares(progress)
        end = self._shares(1.0)
        lowest, highest = sorted((self.initial_weight_target, end[1]))
        if lowest <= target <= highest:
            return source, target
        target = min(max(target, lowest), highest)  # with final weights of a larger sum, that of a cap falls again
        return self.initial_weight_source + self.initial_weight_target - target, target

    def _shares(self, progress: float) -> tuple[float, float]:
        s = _curve(self.transition_schedule, progress)
        total = self.initial_weight_source + self.initial_weight_target
        source = _between(self.initial_weight_source, self.final_weight_source, s)
        target = _between(self.initial_weight_target, self.final_weight_target, s)
        source, target = self._capped(source, target)
        scale = total / (source + target)
        return self._capped(source * scale, target * scale)

    def _capped(self, source: float, target: float) -> tuple[float, float]:
        excess = target - self.max_weight_target
        return (source, target) if excess <= 0 else (source + excess, self.max_weight_target)

    def step(self, progress: float) -> float:
        """Progress after one more adaptation."""
        step = max(0.05, self.transition_step * (1 - progress)) if self.adaptive_step else self.transition_step
        after = progress + step
        return 1.0 if after > 1 - 1e-9 else after

    @property
    def points(self) -> list[tuple[int, float]]:
        """Iterations and progress of `schedule`, with its beginning."""
        points = list(self.schedule or ())
        return points if points and points[0][0] == 0 else [(0, 0.0), *points]

    @property
    def adaptations(self) -> int:
        """Adaptations that the whole move takes."""
        count, progress = 0, 0.0
        while progress < 1:
            count, progress = count + 1, self.step(progress)
        return count


def _between(first: float, last: float, s: float) -> float:
    return last if s == 1 else first + (last - first) * s


def _chosen(components: Mapping[str, bool] | None, labels: Sequence[str]) -> list[str]:
    return list(labels) if components is None else [name for name, chosen in components.items() if chosen]
