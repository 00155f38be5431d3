"""What a batch-size automation knows: how much memory this process takes at each size, and what was done about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from traiNNer.training_automations.base import MemoryFacts

RECENT = 5
"""Readings whose largest use by others counts where a batch is to grow."""

DOUBLINGS = 6
"""What is doubled is doubled so often at most."""


class BatchMemory:
    """reserved(b) = a + c b over the sizes seen, of each the largest reading; a so that it holds for the present size.

    From one size alone a is taken for what was held before the first step: above it that predicts too much rather than
    too little, since gradients and what is loaded late count as the samples'.

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
        self.floor = 0
        """What this process held before its first step."""
        self.prior: float | None = None
        """The slope c that was found before everything else was forgotten."""
        self.largest: dict[int, int] = {}
        """The most that this process held, by batch size."""
        self.slope: float | None = None
        """Bytes of one sample more, c, by least squares; None if only one size was seen."""

    def take(self, memory: MemoryFacts) -> None:
        """Note a reading of the present size."""
        self.readings.append([memory.batch_size, memory.reserved])
        if len(self.readings) > self._kept:
            self._thin_out()
        self.others = [*self.others, max(memory.used - memory.reserved, 0)][-RECENT:]
        self.uses = [*self.uses, memory.used][-RECENT:]
        self.total = memory.total
        self._fit()

    def _thin_out(self) -> None:
        most = Counter(size for size, _ in self.readings).most_common(1)[0][0]
        del self.readings[next(index for index, (size, _) in enumerate(self.readings) if size == most)]

    def forget(self) -> None:
        """What is trained has changed, and with it what a sample takes."""
        self.prior = self.prior if self.slope is None else self.slope
        self.readings, self.uses = [], []
        self._fit()

    def _fit(self) -> None:
        self.largest, self.slope = {}, None
        for size, reserved in self.readings:
            self.largest[size] = max(reserved, self.largest.get(size, 0))
        if len(self.largest) > 1:
            mean = sum(self.largest) / len(self.largest)
            squares = sum((size - mean) ** 2 for size in self.largest)
            self.slope = max(sum((size - mean) * most for size, most in self.largest.items()) / squares, 0.0)

    def share(self, size: int, present: int, *, slope: float | None = None) -> float:
        """Predicted use of the device at a size, of the total; infinite before there is a reading.

        Where the size is above the present one, others count with the most that they used lately.
        """
        if not self.largest:
            return float("inf")
        known = present if present in self.largest else max(self.largest)
        worst = self.largest[known] / known  # as if all were the samples': a is not negative
        alone = max(self.largest[known] - self.floor, 0) / known
        found = self.slope if slope is None else slope
        others = max(self.others) if size > present else self.others[-1]
        own = self.largest[known] + (alone if found is None else min(found, worst)) * (size - known)
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
            "floor": self.floor,
            "prior": self.prior,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.readings = [list(reading) for reading in state_dict["readings"]]
        self.others, self.uses = list(state_dict["others"]), list(state_dict["uses"])
        self.total, self.prior = state_dict["total"], state_dict["prior"]
        self.floor = state_dict.get("floor", 0)
        while len(self.readings) > self._kept:
            self._thin_out()
        self._fit()


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
    """Size and throughput before a growth that has not been judged, and what share of it a first look found wanting; or
    0 and the throughput at a size that was left for it, until that of the present one is known again."""
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

    def follow(self, before: int, now: int) -> None:
        """The option file has another size than before: what was its size follows it."""
        if before != now and not self.asked and self.size == before:
            self.size, self.trial, self.speeds = now, [], []


def doubled(times: int) -> int:
    """2 to the power of `times`, within limits."""
    return 2 ** min(times, DOUBLINGS)
