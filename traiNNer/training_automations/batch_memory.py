"""What a batch-size automation knows: how much memory this process takes at each size, and what was done about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from traiNNer.training_automations.base import MemoryFacts

RECENT = 5
"""Readings whose largest use by others counts where a batch is to grow."""


class BatchMemory:
    """reserved(b) = a + c b over the sizes seen, of each the largest reading; a so that it holds for the present size.

    From one size alone a is taken for 0: above it that predicts too much rather than too little.

    Args:
        kept: readings that are remembered; of the size that has the most the oldest one gives way.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self.readings: list[list[int]] = []
        """[batch size, reserved], in order."""
        self.others: list[int] = []
        """What other programs used, at the last readings."""
        self.uses: list[int] = []
        """Use of the device at the last readings of the present size."""
        self.total = 0
        self.prior: float | None = None
        """The slope c that was found before everything else was forgotten."""

    def take(self, memory: MemoryFacts) -> None:
        """Note a reading of the present size."""
        self.readings.append([memory.batch_size, memory.reserved])
        if len(self.readings) > self._kept:
            self._thin_out()
        self.others = [*self.others, max(memory.used - memory.reserved, 0)][-RECENT:]
        self.uses = [*self.uses, memory.used][-RECENT:]
        self.total = memory.total

    def _thin_out(self) -> None:
        most = Counter(size for size, _ in self.readings).most_common(1)[0][0]
        del self.readings[next(index for index, (size, _) in enumerate(self.readings) if size == most)]

    def forget(self) -> None:
        """What is trained has changed, and with it what a sample takes."""
        self.prior = self.fitted() if len(self.largest) > 1 else self.prior
        self.readings, self.uses = [], []

    @property
    def largest(self) -> dict[int, int]:
        """The most that this process held, by batch size."""
        found: dict[int, int] = {}
        for size, reserved in self.readings:
            found[size] = max(reserved, found.get(size, 0))
        return found

    def fitted(self) -> float | None:
        """Bytes of one sample more, by least squares; None if only one size was seen."""
        sizes, reserved = np.array(list(self.largest.items()), dtype=np.float64).reshape(-1, 2).T
        if len(sizes) < 2:
            return None
        apart = sizes - sizes.mean()
        return max(float(apart @ reserved) / float(apart @ apart), 0.0)

    def share(self, size: int, present: int, *, slope: float | None = None) -> float:
        """Predicted use of the device at a size, of the total; infinite before there is a reading.

        Where the size is above the present one, others count with the most that they used lately.
        """
        largest = self.largest
        if not largest:
            return float("inf")
        known = present if present in largest else max(largest)
        worst = largest[known] / known  # as if all were the samples': a is not negative
        found = self.fitted() if slope is None else slope
        others = max(self.others) if size > present else self.others[-1]
        own = largest[known] + (worst if found is None else min(found, worst)) * (size - known)
        return (own + others) / self.total

    def over(self, share: float, readings: int) -> bool:
        """Whether the device's use was above a share of the total at each of the last readings."""
        last = self.uses[-readings:]
        return len(last) == readings and min(last) > share * self.total

    def state_dict(self) -> dict[str, Any]:
        """Numbers and lists."""
        return {
            "readings": [list(reading) for reading in self.readings],
            "others": list(self.others),
            "uses": list(self.uses),
            "total": self.total,
            "prior": self.prior,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.readings = [list(reading) for reading in state_dict["readings"]]
        self.others, self.uses = list(state_dict["others"]), list(state_dict["uses"])
        self.total, self.prior = state_dict["total"], state_dict["prior"]
        while len(self.readings) > self._kept:
            self._thin_out()


@dataclass
class BatchState:
    """What a batch-size automation has seen and done."""

    size: int = 0
    """Of the largest micro-batch, as the last reading had it."""
    since: int = 0
    """Iteration of the last adjustment."""
    asked: int = 0
    """Size that was asked for and not yet seen; 0 for none."""
    trial: list[float] = field(default_factory=list[float])
    """Size and throughput before a growth that has not been judged."""
    speeds: list[float] = field(default_factory=list[float])
    """Samples per second of the last steps."""
    settle: int = 0
    """Steps that are still not measured."""
    skip: int = 0
    """Readings that are not taken: they know of two sizes."""
    pause: int = 0
    """Iteration before which nothing grows."""
    ceiling: int = 0
    """Size from which on none is tried before iteration `lifted`; 0 for none."""
    lifted: int = 0
    failures: int = 0
    """Times that a size did not fit."""
    refusals: int = 0
    """Times in a row that one was too slow."""
    proven: int = 0
    """Largest size that has run without failing."""
    failure: list[int] = field(default_factory=list[int])
    """Size that did not fit in this iteration, and that of the pieces that did."""
    blind: bool = False
    """Whether nothing was read since a failure."""
    told: bool = False
    """Whether the log has it that the smallest size does not fit."""
