"""Synthetic losses of long trainings: a falling curve, lognormal noise, and rare spikes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Family = Literal["l1", "plateau", "spike", "power 0.1", "power 0.2", "power 0.35", "power 0.5", "exponential"]

NOISE = 0.18
"""Standard deviation of the logarithm, from one iteration to the next."""

SPIKES = 0.001
"""Share of iterations whose loss is 5 to 50 times as large."""

ONSET = 20_000
"""Iteration at which the family `plateau` stops falling."""


def truth(family: Family, length: int) -> Array:
    """The loss without noise at iterations 1, 2, ..."""
    t = np.arange(1, length + 1, dtype=np.float64)
    l1 = 0.02 + 0.25 * t**-0.35
    if family == "plateau":
        return np.where(t < ONSET, l1, l1[ONSET - 1]) if length >= ONSET else l1
    if family == "spike":  # a jump to four times the loss, which takes some thousand iterations to heal
        return l1 * (1 + 3 * np.exp(-np.maximum(t - 15_000, 0) / 1500) * (t >= 15_000))
    if family.startswith("power"):
        return 0.25 * t ** -float(family.split()[1])
    return 0.1 * 0.98 ** (t / 4000) if family == "exponential" else l1


def noisy(curve: Array, seed: int) -> Array:
    """The curve as a training shows it."""
    rng = np.random.default_rng(seed)
    values = curve * np.exp(NOISE * rng.standard_normal(len(curve)) - NOISE**2 / 2)
    spikes = rng.random(len(curve)) < SPIKES
    values[spikes] *= rng.uniform(5, 50, int(spikes.sum()))
    return values


def gain(curve: Array, at: int, horizon: int) -> float:
    """The true relative gain over the horizon that follows index `at`."""
    return 1 - float(curve[min(at + horizon, len(curve) - 1)] / curve[at])


def curve(slope: float, length: int, seed: int = 0, noise: float = 0.01) -> list[float]:
    """A loss that changes by the share `slope` in 100 iterations, without spikes."""
    values = 0.1 * (1 + slope) ** (np.arange(length) / 100)
    return (values * np.exp(noise * np.random.default_rng(seed).standard_normal(length))).tolist()
