"""What a learning-rate automation remembers of a training as long as it stays the same training."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from traiNNer.training_automations.base import StepFacts
from traiNNer.training_automations.trend import Z

Statement: TypeAlias = Literal["", "plateau detection", "divergence", "steady improvement"]

WINDOWS = (16, 22, 30, 40, 60, 85, 120, 160)
"""Blocks; the short ones say something where the threshold is large against the noise."""

MOVED = 0.2
"""A rate or a weight that has moved by more than this share makes what was before it another training."""

STEADY_RISE, STEADY_SPREAD = math.log(1.2), 0.25
"""Gradient norms are steady if they rise by less from one half of a window to the other, and vary by less."""

POWER = 1.28
"""Deviations that a plateau's interval needs beyond its half-width to lie below a threshold in 90 % of cases."""


@dataclass
class RateState:
    """What a learning-rate automation has done, and what it is about to do."""

    mode: str
    """`plateau`, `cosine` or `exponential`; empty until that is chosen."""
    factor: float = 1.0
    changed: int = 0
    """Iteration since which the training is this one."""
    statement: Statement = ""
    gain: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Lower bound, estimate and upper bound of the last verdict that was one."""
    peak: float = 0.0
    """Highest scheduled rate."""
    decayed: bool = False
    """Whether the schedule has begun to decay."""
    decay: list[float] = field(default_factory=list[float])
    """Iteration and factor at which a decay of our own began; empty before it."""
    told: bool = False
    """Whether the noise has been told."""
    norms: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Sum and number of logarithms of gradient norms, of the block that is not complete."""

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "gain": list(self.gain)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for each in fields(self):
            setattr(self, each.name, deepcopy(state_dict[each.name]))
        self.gain = tuple(self.gain)


class Window:
    """What has been seen since the training last became another one."""

    def __init__(self) -> None:
        self.seen = 0
        """Verdicts."""
        self.worse: int | None = None
        self.better: int | None = None
        """The verdict since which it is worsening, or gaining much."""
        self.rate: float | None = None
        self.weights: dict[str, float] = {}
        """As they were when it began."""
        self.norms: list[float] = []
        """Mean logarithm of net_g's gradient norm of each block."""

    def moved(self, step: StepFacts) -> bool:
        """Whether the rate or a weight is another now; takes them if the window begins here."""
        if step.scheduled_rate == self.rate and step.weights == self.weights:
            return False
        if self.rate is None:
            self.rate, self.weights = step.scheduled_rate, dict(step.weights)
        pairs = [(self.rate, step.scheduled_rate)]
        pairs += [
            (self.weights.get(label, 0.0), step.weights.get(label, 0.0)) for label in {*self.weights, *step.weights}
        ]
        return any(abs(now - then) > MOVED * abs(then) for then, now in pairs)

    def steady(self, length: int) -> bool:
        """Whether the gradient norms neither grow nor jump; not known is no."""
        norms = np.array(self.norms[-length:])
        if len(norms) < WINDOWS[0]:
            return False
        older, newer = np.median(norms[: len(norms) // 2]), np.median(norms[len(norms) // 2 :])
        spread = np.median(np.abs(norms - np.median(norms))) / 0.6745
        return bool(newer - older < STEADY_RISE and spread < STEADY_SPREAD)

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {
            "seen": self.seen,
            "worse": self.worse,
            "better": self.better,
            "rate": self.rate,
            "weights": dict(self.weights),
            "norms": list(self.norms),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.seen, self.worse, self.better = (state_dict[key] for key in ("seen", "worse", "better"))
        self.rate, self.weights, self.norms = (
            state_dict["rate"],
            dict(state_dict["weights"]),
            list(state_dict["norms"]),
        )


class Noise:
    """How much a positive value varies from one iteration to the next: standard deviation of its logarithm.

    From the mean absolute difference of neighbours, which a slow change and rare spikes hardly move.
    """

    def __init__(self) -> None:
        self.count, self._sum, self._last = 0, 0.0, math.nan

    def add(self, value: float) -> None:
        """Take a value."""
        if not (math.isfinite(value) and value > 0):
            return
        log = math.log(value)
        if math.isfinite(self._last):
            self._sum += abs(log - self._last)
        self.count, self._last = self.count + 1, log

    @property
    def sigma(self) -> float:
        """The mean absolute difference of two normal values is 2 sigma / sqrt(pi)."""
        return math.sqrt(math.pi) / 2 * self._sum / max(self.count - 1, 1)

    def blocks(self, *, block: int, horizon: int, threshold: float) -> float:
        """Blocks of a window in which a plateau's gain lies below the threshold with 90 % probability.

        The slope over n blocks has the deviation sigma sqrt(12 / n^3), sigma that of a block.
        """
        deviation = self.sigma / math.sqrt(block) * horizon / block
        return (12 * ((Z + POWER) * deviation / threshold) ** 2) ** (1 / 3)

    def state_dict(self) -> dict[str, Any]:
        """Sum and number of differences, and the last value."""
        return {"count": self.count, "sum": self._sum, "last": self._last if self.count else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.count, self._sum = state_dict["count"], state_dict["sum"]
        self._last = math.nan if state_dict["last"] is None else state_dict["last"]
