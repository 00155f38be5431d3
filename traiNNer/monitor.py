"""What the steps of a run were: losses and norms, read from the device in batches, and steps that were not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from traiNNer.utils import dist
from traiNNer.utils.errors import RunError


@dataclass(frozen=True)
class _Pending:
    iteration: int
    labels: list[str]
    values: Tensor
    files: list[str]
    learning_rates: dict[str, float]


class StepMonitor:
    """Keeps the device scalars of each step and reads them together, at the latest every `read_every` iterations.

    Args:
        read_every: iterations between two reads, each one host-device synchronization.
        limit: this many steps in a row that are not finite end the run.
    """

    def __init__(self, *, read_every: int = 10, limit: int = 10) -> None:
        self._read_every, self._limit = read_every, limit
        self._pending: list[_Pending] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._in_a_row = 0
        self._reports: list[str] = []
        self._overflows: list[tuple[int, float]] = []
        self.listener: Callable[[int, Mapping[str, float]], None] | None = None
        """Told each step's values when they have been read, in order."""
        self.skipped = 0
        """Steps skipped so far because something was not finite; those of the search for a loss scale do not count."""

    def add(
        self, iteration: int, record: dict[str, Tensor], files: list[str], learning_rates: dict[str, float]
    ) -> None:
        """Note a step.

        Raises:
            RunError: too many steps in a row were not finite.
        """
        values = torch.stack([value.float() for value in record.values()])
        self._pending.append(_Pending(iteration, list(record), values, files, learning_rates))
        if len(self._pending) >= self._read_every:
            self.read()

    def note(self, lines: list[str]) -> None:
        """Add lines to the next report, such as files that could not be read."""
        self._reports += lines

    def read(self) -> None:
        """Read what is pending: one host-device synchronization.

        Raises:
            RunError: too many steps in a row were not finite.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        rows = torch.cat([step.values for step in pending]).tolist()  # host-device synchronization
        for step in pending:
            row, rows = rows[: len(step.labels)], rows[len(step.labels) :]
            self._take(step, dict(zip(step.labels, row, strict=True)))

    def means(self, *, anew: bool = True) -> dict[str, float]:
        """Mean of each value over the finite steps since sums were started `anew`, over all processes."""
        self.read()
        parts = dist.all_gather_objects((self._sums, self._counts))
        labels = list(self._sums)
        sums = {label: sum(part[0].get(label, 0.0) for part in parts) for label in labels}
        counts = {label: sum(part[1].get(label, 0) for part in parts) for label in labels}
        if anew:
            self._sums, self._counts = {}, {}
        return {label: sums[label] / counts[label] for label in labels}

    def reports(self) -> list[str]:
        """What there is to tell since the last call, of all processes: skipped steps, and what was noted."""
        self.read()
        reports, self._reports = self._reports, []
        return [line for part in dist.all_gather_objects(reports) for line in part]

    def overflows(self) -> list[str]:
        """A line about the steps since the last call that the search for the loss scale has skipped, if there are any.

        Every process has the same.
        """
        self.read()
        overflows, self._overflows = self._overflows, []
        if not overflows:
            return []
        (first, highest), (last, lowest) = overflows[0], overflows[-1]
        one = len(overflows) == 1
        when = f"iteration {first}" if one else f"iterations {first} to {last}"
        skipped = "this step was skipped" if one else f"{len(overflows)} steps were skipped"
        return [
            f"{when}: float16 gradients overflowed at loss scale {highest:,g}; {skipped}, the scale is {lowest / 2:,g} "
            "from there (this is how the scale is found)"
        ]

    def state_dict(self) -> dict[str, Any]:
        """Sums since the last log line and counts of skipped steps; reads what is pending."""
        self.read()
        return {
            "sums": dict(self._sums),
            "counts": dict(self._counts),
            "in_a_row": self._in_a_row,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from saved sums and counts."""
        self._sums, self._counts = dict(state_dict["sums"]), dict(state_dict["counts"])
        self._in_a_row, self.skipped = state_dict["in_a_row"], state_dict["skipped"]

    def _take(self, step: _Pending, values: dict[str, float]) -> None:
        if self.listener is not None:
            self.listener(step.iteration, dict(values))
        finite, losses_finite = values.pop("finite"), values.pop("losses_finite")
        scales = [values.pop(label) for label in step.labels if label.startswith("loss_scale/")]
        values = {label: value for label, value in values.items() if not label.startswith("gradient/")}
        if finite:
            self._in_a_row = 0
            for label, value in values.items():
                self._sums[label] = self._sums.get(label, 0.0) + value
                self._counts[label] = self._counts.get(label, 0) + 1
            return
        if losses_finite and scales and min(scales) >= 1:  # below that no scale would help
            self._overflows.append((step.iteration, min(scales)))
            return
        self._in_a_row += 1
        self.skipped += 1
        self._reports.append(_report(step, values))
        if self._in_a_row >= self._limit:
            raise RunError(f"{self._in_a_row} steps in a row were not finite; the last: {self._reports[-1]}")


def _report(step: _Pending, values: dict[str, float]) -> str:
    guilty = [label for label, value in values.items() if not math.isfinite(value)]
    rates = ", ".join(f"{name} {rate:.3g}" for name, rate in step.learning_rates.items())
    return (
        f"iteration {step.iteration}: step skipped, not finite: {', '.join(guilty) or 'another process'}; "
        f"learning rate: {rates}; images: {', '.join(step.files)}"
    )
