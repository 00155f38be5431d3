"""What is known of one loss's share of the gradient, and the factor that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

BETA = 0.9
"""Weight of what was before, in the moving average of the logarithm; per sample."""

ENOUGH = 20
"""Samples that make a level to act on, and the share that a weight of the user's gives."""

STILL = 10
"""So many iterations after the last move of its scheduled weight a loss is at rest."""


@dataclass
class LossShare:
    """A loss's gradient norm relative to the anchor's, unweighted and in logarithms, and its weight's factors."""

    calibration: float = 1.0
    """What the weight is multiplied by for the training images."""
    factor: float = 1.0
    """What it is multiplied by beside, for the share."""
    weight: float = 0.0
    """Magnitude by schedules alone, in the last step; 0: the loss is off."""
    since: int = 0
    """Iteration at which the loss switched on last."""
    moved: int = -STILL
    """Iteration at which its schedule last changed a weight that it had."""
    norm: float = 0.0
    """The last sample, of the loss itself."""
    count: int = 0
    """Samples since the loss switched on."""
    average: float = 0.0
    """Moving average of the samples, without correction of its start from 0."""
    sum: float = 0.0
    """Of the first samples, as long as there is no reference."""
    reference: float | None = None
    """Mean of the first samples: what is kept where no share was asked for."""
    fresh: bool = False
    """Whether there is a sample since the last adjustment was due."""
    checked: int | None = None
    """Iteration at which an adjustment was due last."""
    correcting: bool = False
    """Whether the share is on its way back to its target."""
    small: int = 0
    """Adjustments in a row that changed next to nothing."""
    settled: bool = False
    """Whether the factor stays for good."""

    def see(self, iteration: int, weight: float) -> None:
        """Note the scheduled weight of an iteration."""
        weight = abs(weight)
        if math.isclose(weight, self.weight, rel_tol=1e-9):  # another factor rounds differently
            return
        if self.weight == 0:
            self.since, self.count, self.average, self.fresh = iteration, 0, 0.0, False
            self.sum = 0.0
        elif weight != 0:
            self.moved = iteration
        self.weight = weight

    def take(self, norm: float, anchor: float) -> None:
        """Note a sample of this loss's norm and of the anchor's, both above 0."""
        log = math.log(norm / anchor)
        self.norm, self.fresh = norm, True
        self.count += 1
        self.average = BETA * self.average + (1 - BETA) * log
        if self.reference is None:
            self.sum += log
            if self.count == ENOUGH:
                self.reference = self.sum / ENOUGH

    def moving(self, iteration: int) -> bool:
        """Whether a schedule is changing the weight."""
        return iteration - self.moved < STILL

    @property
    def level(self) -> float:
        """The moving average of the samples."""
        return self.average / (1 - BETA**self.count)

    @property
    def applied(self) -> float:
        """What the scheduled weight is multiplied by."""
        return self.calibration * self.factor

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    @classmethod
    def of(cls, state_dict: Mapping[str, Any]) -> LossShare:
        """One from a saved state."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in state_dict.items() if name in known})
