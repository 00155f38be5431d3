"""Whether a noisy loss still falls: a statement about its gain over a horizon, with its confidence."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Verdict: TypeAlias = Literal["improving", "flat", "worsening", "undecided"]

WINDOWS = (60, 85, 120, 160)
"""Blocks of the windows that are asked, the shortest first.

At a noise of 18 % per iteration and 100 iterations a block, the gain per 4,000 iterations is known to 0.54 % with 60
blocks and to 1 % with 40: too little to tell 2 % from nothing a thousand times in a run.
"""

SHARP = 1.3
"""A curve is flat only if its gain is known to that many thresholds: a wide interval lies below one by chance.

Measured with blocks of 100, a horizon of 1,000 and a threshold of 0.1 % on a curve that gains 0.5 % (noise of 18 %):
without this rule 9 of 30 were called flat, with it none.
"""

TRIMMED = 0.1
"""Part of a block's values that is left out at each end: spikes."""

Z = 1.96
"""Of a confidence of 95 %."""

JUMP_SIGMAS, JUMP_SHARE = 4.0, 0.1
"""An upward jump from one block to the next is one by more than so many deviations and by more than this share."""


class Trend:
    """Relative gain of a positive value per horizon, from blocks of iterations.

    Blocks are trimmed means, their logarithms do not know the value's scale. Over a window of the last blocks the slope
    is Theil and Sen's median of pairwise slopes with the confidence interval of Mann and Kendall's statistic; its
    variance is inflated where blocks are correlated (Hamed and Rao, 1998). The shortest window that decides is taken.

    Args:
        block: iterations of a block.
        horizon: iterations that a gain refers to.
        threshold: relative gain per horizon below which a curve is flat.
        windows: blocks of the windows that are asked, the shortest first.
    """

    def __init__(self, *, block: int, horizon: int, threshold: float, windows: tuple[int, ...] = WINDOWS) -> None:
        self.block, self.horizon, self.threshold, self._windows = block, horizon, threshold, windows
        self._values: list[float] = []
        self._means: list[float] = []
        self.gain = (math.nan, math.nan, math.nan)
        """Lower bound, estimate and upper bound of the relative gain per horizon, of the last verdict."""
        self.length = windows[0]
        """Blocks of the window that gave the last verdict."""

    @property
    def blocks(self) -> int:
        """Blocks since the window began, no more than the longest window has."""
        return len(self._means)

    def restart(self) -> None:
        """Forget everything: what gives the values is another thing now."""
        self._values, self._means = [], []

    def add(self, value: float) -> Verdict | None:
        """Take the value of an iteration; a verdict at the end of a block, None elsewhere."""
        if math.isfinite(value) and value > 0:
            self._values.append(value)
        if len(self._values) < self.block:
            return None
        values = np.sort(self._values)
        cut = int(TRIMMED * len(values))
        self._values = []
        return self._end_block(float(np.log(values[cut : len(values) - cut].mean())))

    def _end_block(self, mean: float) -> Verdict:
        if self._jumps(mean):
            self._means = []
        self._means = [*self._means, mean][-self._windows[-1] :]
        for length in self._windows:
            if length > len(self._means):
                break
            window, self.length = np.array(self._means[-length:]), length
            self.gain = low, _, high = self._gain(window)
            if low > self.threshold:
                return "improving"
            if high < 0:
                return "worsening"
            sharp = high - low < 2 * SHARP * self.threshold
            if sharp and high < self.threshold and self._newer_half_agrees(window):
                return "flat"
        return "undecided"

    def _newer_half_agrees(self, window: NDArray[np.float64]) -> bool:
        return self._gain(window[len(window) // 2 :])[1] < 2 * self.threshold

    def _jumps(self, mean: float) -> bool:
        if len(self._means) < 8:
            return False
        recent = np.array(self._means[-40:])
        sigma = float(np.median(np.abs(np.diff(recent)))) / 0.6745
        return mean - float(np.median(recent[-5:])) > max(JUMP_SIGMAS * sigma, math.log1p(JUMP_SHARE))

    def state_dict(self) -> dict[str, Any]:
        """Values of the block that is not complete, and the blocks of the longest window."""
        return {"values": list(self._values), "means": list(self._means)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from saved values."""
        self._values, self._means = list(state_dict["values"]), list(state_dict["means"])

    def _gain(self, window: NDArray[np.float64]) -> tuple[float, float, float]:
        """Lower bound, estimate, upper bound of 1 - (value after a horizon) / (value before)."""
        low, slope, high = slopes(window)
        per_horizon = self.horizon / self.block
        return tuple(-math.expm1(each * per_horizon) for each in (high, slope, low))  # type: ignore[return-value]


class MetricTrend:
    """What `Trend` says of a loss, of a metric's validations: they are few, and each counts.

    The gain is the change for the better per horizon, relative to the metric's median; windows have 8, 16, 32
    validations, and the shortest that decides is taken.

    Args:
        higher: whether the metric improves upwards.
        horizon: iterations that a gain refers to.
        threshold: relative gain per horizon below which a metric is flat.
        span: iterations after which a validation is forgotten; 0 for never.
    """

    LENGTHS = (8, 16, 32)

    def __init__(self, name: str, *, higher: bool, horizon: int, threshold: float, span: int = 0) -> None:
        self.name = name
        self._sign, self._horizon, self._threshold, self._span = 1 if higher else -1, horizon, threshold, span
        self._points: list[list[float]] = []
        self.gain = (math.nan, math.nan, math.nan)
        """Lower bound, estimate and upper bound of the gain of the last verdict."""
        self.length = self.LENGTHS[0]
        """Validations of the window that gave the last verdict."""

    def restart(self) -> None:
        """Forget everything."""
        self._points = []

    def add(self, iteration: int, value: float) -> None:
        """Take a validation."""
        if math.isfinite(value):
            self._points = [*self._points, [iteration, value]][-self.LENGTHS[-1] :]

    def verdict(self, iteration: int) -> Verdict:
        """What the validations up to now say."""
        points = [point for point in self._points if not self._span or point[0] > iteration - self._span]
        for length in self.LENGTHS:
            if length > len(points):
                break
            self.length = length
            low, _, high = self.gain = self._gain(np.array(points[-length:]))
            if low > self._threshold:
                return "improving"
            if high < 0:
                return "worsening"
            if high < self._threshold:
                return "flat"
        return "undecided"

    def _gain(self, window: NDArray[np.float64]) -> tuple[float, float, float]:
        iterations, values = window.T
        spacing = (iterations[-1] - iterations[0]) / (len(window) - 1)
        size = abs(float(np.median(values)))
        if not spacing > 0 or not size > 0:
            return (-math.inf, math.nan, math.inf)
        low, slope, high = (each * self._horizon / spacing for each in slopes(self._sign * values / size))
        return (low, slope, high)

    def state_dict(self) -> dict[str, Any]:
        """The validations of the longest window."""
        return {"points": [list(point) for point in self._points]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from saved validations."""
        self._points = [list(point) for point in state_dict["points"]][-self.LENGTHS[-1] :]


def slopes(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Theil-Sen slope per step with its bounds: lower, estimate, upper."""
    n = len(values)
    first, second = np.triu_indices(n, 1)
    each = np.sort((values[second] - values[first]) / (second - first))
    estimate = float(np.median(each))
    rest = values - estimate * np.arange(n)
    spread = math.sqrt(n * (n - 1) * (2 * n + 5) / 18 * inflation(rest))
    reach = Z * spread
    low = max(int((len(each) - reach) / 2), 0)
    high = min(int((len(each) + reach) / 2) + 1, len(each) - 1)
    return float(each[low]), estimate, float(each[high])


def inflation(rest: NDArray[np.float64]) -> float:
    """By how much correlation of neighbours makes the statistic's variance larger, at least 1 (Hamed and Rao)."""
    n = len(rest)
    ranks = np.argsort(np.argsort(rest)).astype(np.float64)
    ranks -= ranks.mean()
    power = float(ranks @ ranks)
    total = 0.0
    for lag in range(1, min(10, n - 3)):
        correlation = float(ranks[:-lag] @ ranks[lag:]) / power
        if abs(correlation) > 1.96 / math.sqrt(n):
            total += (n - lag) * (n - lag - 1) * (n - lag - 2) * correlation
    return max(1.0, 1 + 2 / (n * (n - 1) * (n - 2)) * total)
