"""Gradient clipping that follows the gradients: only what lies far above the usual is cut."""

from __future__ import annotations

import math
import statistics
from typing import Annotated, Any

from pydantic import Field

from traiNNer.training_automations.base import (
    Decision,
    Note,
    Phase,
    RunFacts,
    SetClipThreshold,
    StepFacts,
    ValidationFacts,
)
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import AUTOMATIONS

SIGMAS = 4.0
"""A norm is unusual that many standard deviations above the mean, both of the logarithm."""

SMALLEST_SIGMA = 0.05
"""Norms that hardly vary get this deviation, so that the threshold keeps a distance."""

ENOUGH = 20
"""Norms that make a mean and a deviation; and norms above the threshold in a row that make a new level."""

EXPLODING = 10.0
"""A norm of more than so many times the running median is named in the log."""


class _Level:
    """The norms of one network, and its threshold. Norms are kept as logarithms."""

    def __init__(self, threshold: float, size: int) -> None:
        self.threshold, self._size = threshold, size
        self.history: list[float] = []
        """The last ones that are taken for usual."""
        self.above: list[float] = []
        """Those above the threshold since the last one below; no more than make a new level."""
        self.exploded: list[float] = []
        """Those far above the usual since the last decision: the largest, and how many."""
        self.asked = 0
        """Iteration at which it was asked for its threshold last."""
        self.shifted = False
        """Whether a new level has begun since the last decision."""
        self.off = 0
        """Decisions in a row at which the threshold was too low (above 0) or too high (below 0)."""
        self.moving = True
        """Whether it is on its way."""

    def take(self, log: float) -> None:
        """Note a norm."""
        known = len(self.history) >= ENOUGH
        if known and log > statistics.median(self.history) + math.log(EXPLODING):
            largest, count = self.exploded or (log, 0)
            self.exploded = [max(largest, log), count + 1]
        else:
            self.history = [*self.history, log][-self._size :]
        self.above = [*self.above, log] if log > math.log(self.threshold) else []
        if len(self.above) >= ENOUGH:
            highest = statistics.median(self.above) + math.log(EXPLODING)
            self.history = [each for each in self.above if each <= highest]
            self.above, self.exploded, self.shifted, self.moving = [], [], True, True

    @property
    def wanted(self) -> float:
        """Where the threshold should be: above all norms but unusual ones."""
        centre = statistics.median(self.history) if self.shifted else statistics.fmean(self.history)
        return math.exp(centre + SIGMAS * max(statistics.stdev(self.history), SMALLEST_SIGMA))

    def is_off(self, wanted: float, band: float, long: int) -> bool:
        """Whether the threshold is to move towards where it should be: it has been off by more than a band for long.

        Once it moves it does so until it is within the band.
        """
        distance = math.log(wanted / self.threshold)
        if abs(distance) <= band:
            self.off, self.moving = 0, False
            return False
        self.off = int(math.copysign(abs(self.off) * (self.off * distance > 0) + 1, distance))
        self.moving = self.moving or abs(self.off) > long
        return self.moving

    def state_dict(self) -> dict[str, Any]:
        """Threshold and norms."""
        return {
            "threshold": self.threshold,
            "history": list(self.history),
            "above": list(self.above),
            "exploded": list(self.exploded),
            "shifted": self.shifted,
            "off": self.off,
            "moving": self.moving,
            "asked": self.asked,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.threshold, self.shifted = state_dict["threshold"], state_dict["shifted"]
        self.history, self.above = list(state_dict["history"])[-self._size :], list(state_dict["above"])
        self.off, self.moving = state_dict["off"], state_dict["moving"]
        self.exploded, self.asked = list(state_dict["exploded"]), state_dict["asked"]


@AUTOMATIONS.register("AdaptiveGradientClipping")
class AdaptiveGradientClipping:
    """Clips gradient norms at exp(m + 4 s), m and s mean and standard deviation of the logarithms of the last norms.

    Every `monitoring_frequency` iterations each network's threshold moves there, by `adjustment_factor` at most, if it
    has been off by more than that for a whole history: it need not be exact, and adjustments are few. A norm of more
    than 10 times the median does not move m and s. After 20 norms above the threshold in a row their median is the new
    level (a loss that switched on, say): the threshold jumps there. Steps that were not applied do not count.

    Shapes: none. Range: thresholds within [min_threshold, max_threshold].
    Reference: ours. Kumar et al., "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", 2025, clips by mean and
    deviation too, of norms as they are after clipping, and stays at its level for ever if they rise for good.

    ```yaml
    training_automations:
      AdaptiveGradientClipping:
        initial_threshold: 1.0
        monitoring_frequency: 10
    ```

    Raises:
        ConfigError: bounds that contradict each other.
    """

    name = "AdaptiveGradientClipping"
    asked = "interval"
    max_adjustments = 100

    def __init__(
        self,
        *,
        initial_threshold: Annotated[float, Field(gt=0, description="threshold at the start, gradient norm")] = 1.0,
        min_threshold: Annotated[float, Field(gt=0, description="lowest threshold, gradient norm")] = 0.1,
        max_threshold: Annotated[float, Field(gt=0, description="highest threshold, gradient norm")] = 10.0,
        adjustment_factor: Annotated[float, Field(gt=1, description="largest factor of one adjustment")] = 1.2,
        monitoring_frequency: Annotated[int, Field(ge=1, description="iterations between adjustments")] = 10,
        gradient_history_size: Annotated[int, Field(ge=ENOUGH, description="norms that are remembered")] = 100,
        fallback_threshold: Annotated[
            float, Field(gt=0, description="threshold when the automation has failed, gradient norm")
        ] = 1.0,
    ) -> None:
        if not min_threshold <= initial_threshold <= max_threshold:
            message = f"found {initial_threshold}; accepted: between min_threshold and max_threshold"
            raise ConfigError(Problem(key="initial_threshold", message=message))
        self._initial, self._bounds, self._fallback = (
            initial_threshold,
            (min_threshold, max_threshold),
            fallback_threshold,
        )
        self._factor, self._every, self._size = adjustment_factor, monitoring_frequency, gradient_history_size
        self._levels: dict[str, _Level] = {}

    def start(self, run: RunFacts) -> list[str]:
        """Between which thresholds it clips; nothing of a run changes what norms say."""
        lowest, highest = map(_shown, self._bounds)
        return [f"clips gradient norms at {_shown(self._initial)} at first, then within {lowest} and {highest}"]

    def observe_phase(self, iteration: int, what: Phase) -> None:
        """A new level of norms is noticed by the norms themselves."""

    def observe_step(self, step: StepFacts) -> None:
        """Take the norms of an iteration."""
        for network, norm in step.norms.items() if step.applied else ():
            if math.isfinite(norm) and norm > 0:
                self._levels.setdefault(network, _Level(self._initial, self._size)).take(math.log(norm))

    def observe_validation(self, validation: ValidationFacts) -> None:
        """Validations say nothing about gradients."""

    def decide(self, iteration: int) -> list[Decision]:
        """New thresholds, and what was clipped as exploding."""
        decisions: list[Decision] = []
        for network, level in self._levels.items():
            if level.exploded:
                decisions.append(self._explosion(network, level))
            threshold = self._next(level, iteration)
            if threshold is not None:
                decisions.append(self._adjustment(network, level, threshold))
                level.threshold = threshold
            level.exploded, level.shifted, level.asked = [], False, iteration
        return decisions

    def _next(self, level: _Level, iteration: int) -> float | None:
        """The threshold from here on; None if it stays."""
        due = iteration // self._every > level.asked // self._every and len(level.history) >= ENOUGH
        if not due and not level.shifted:
            return None
        lowest, highest = self._bounds
        wanted = min(max(level.wanted, lowest), highest)
        if level.shifted:
            return wanted
        step = min(max(wanted, level.threshold / self._factor), level.threshold * self._factor)
        return step if level.is_off(wanted, math.log(self._factor), self._size // self._every) else None

    def _adjustment(self, network: str, level: _Level, threshold: float) -> Decision:
        reason = "level shift" if level.shifted else "optimization"
        change = f"adjusted from {_shown(level.threshold)} to {_shown(threshold)} due to {reason}"
        return SetClipThreshold(
            reason=reason,
            text=f"grad_clip_threshold{_of(network)} {change}",
            evidence={"median": math.exp(statistics.median(level.history)), "norms": len(level.history)},
            network=network,
            threshold=threshold,
        )

    def _explosion(self, network: str, level: _Level) -> Decision:
        largest, count = level.exploded
        median, many = math.exp(statistics.median(level.history)), "" if count == 1 else f" ({int(count)} of them)"
        done = "clipped to" if largest > math.log(level.threshold) else "is below the threshold,"
        clipped = f"{done} {_shown(level.threshold)}, {EXPLODING:g} times the median is {EXPLODING * median:.3g}"
        return Note(
            reason="exploding gradients",
            text=f"gradient norm{_of(network)} of {math.exp(largest):.3g}{many} {clipped}, due to exploding gradients",
            evidence={"norm": math.exp(largest), "median": median, "count": int(count)},
            counts=False,
            about=f"{network} {int(count)} {largest}",
        )

    def holding(self) -> list[Decision]:
        """Each network's threshold."""
        return [
            SetClipThreshold(reason="resume", text="", network=network, threshold=level.threshold, counts=False)
            for network, level in self._levels.items()
        ]

    def fallback(self) -> list[Decision]:
        """A fixed threshold for every network."""
        text = f"grad_clip_threshold fixed at {_shown(self._fallback)}"
        return [
            SetClipThreshold(reason="fallback", text=text, network=network, threshold=self._fallback, counts=False)
            for network in dict.fromkeys((*self._levels, "net_g", "net_d"))  # a network that is not there is skipped
        ]

    def state_dict(self) -> dict[str, Any]:
        """Thresholds and norms by network."""
        return {network: level.state_dict() for network, level in self._levels.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; thresholds stay within the bounds of the present options."""
        self._levels = {}
        for network, state in state_dict.items():
            level = self._levels[network] = _Level(self._initial, self._size)
            level.load_state_dict(state)
            level.threshold = min(max(level.threshold, self._bounds[0]), self._bounds[1])


def _of(network: str) -> str:
    return "" if network == "net_g" else f" of {network}"


def _shown(threshold: float) -> str:
    """Three digits, one of them behind the point."""
    return str(float(f"{threshold:.3g}"))
