"""The best value of every validation metric so far."""

from __future__ import annotations

import math
from typing import Any

from traiNNer.types import Better


class BestValues:
    """Remembers, for each metric, its best value and the iteration of it, through a resume too."""

    def __init__(self) -> None:
        self._best: dict[str, tuple[float, int]] = {}

    def update(self, metric: str, value: float, iteration: int, better: Better) -> bool:
        """Note a value; True if it is a new best. Equality is no improvement, a non-finite value never the best."""
        if not math.isfinite(value):
            return False
        best = self._best.get(metric)
        if best is not None and not (value > best[0] if better == "higher" else value < best[0]):
            return False
        self._best[metric] = (value, iteration)
        return True

    def __getitem__(self, metric: str) -> tuple[float, int]:
        return self._best[metric]

    def items(self) -> list[tuple[str, tuple[float, int]]]:
        """(metric, (value, iteration)) in the order of their first validation."""
        return list(self._best.items())

    def state_dict(self) -> dict[str, Any]:
        """Metric to [value, iteration]."""
        return {metric: [value, iteration] for metric, (value, iteration) in self._best.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from saved values."""
        self._best = {metric: (value, iteration) for metric, (value, iteration) in state_dict.items()}
