"""Synthetic validations of long trainings: a curve in dB, what is seen of it, and the training loss beside it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Family = Literal["noisy rise", "slow rise", "overfit hump"]
FAMILIES: tuple[Family, ...] = ("noisy rise", "slow rise", "overfit hump")

EVERY = 1000
"""Iterations between validations."""

LENGTH = 120
"""Validations of a run."""


def truth(family: Family, rng: np.random.Generator) -> Array:
    """The metric without noise at validations 1, 2, ...

    A noisy rise ends on a plateau; a slow one goes on at ever smaller steps; a hump falls from its top on.
    """
    t = np.arange(1, LENGTH + 1, dtype=np.float64)
    height = rng.uniform(25, 35)
    if family == "slow rise":
        return height - rng.uniform(2, 4) * t ** -rng.uniform(0.15, 0.4)
    onset = rng.uniform(15, 50)
    rise = 1 - np.minimum(t / onset, 1)
    curve = height - rng.uniform(1, 4) * rise**2
    return curve - (rng.uniform(0.004, 0.03) * np.maximum(t - onset, 0) if family == "overfit hump" else 0)


def noisy(curve: Array, rng: np.random.Generator) -> Array:
    """The curve as validations show it: one deviation of noise for a run, 0.002 to 0.01 dB."""
    return curve + rng.uniform(0.002, 0.01) * rng.standard_normal(len(curve))


def training_loss(rng: np.random.Generator) -> Array:
    """The mean training loss before each validation; it falls in all families."""
    t = np.arange(1, LENGTH + 1, dtype=np.float64)
    return (0.02 + 0.08 * t**-0.35) * np.exp(0.006 * rng.standard_normal(len(t)))


def gain(curve: Array, at: int, validations: int) -> float:
    """The true gain over the validations that follow index `at`."""
    return float(curve[min(at + validations, len(curve) - 1)] - curve[at])
