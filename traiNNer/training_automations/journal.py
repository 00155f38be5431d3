"""Where decisions are written down: the log, `automations.jsonl`, and TensorBoard's curves under `automation/`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from traiNNer.training_automations.base import Change, Decision
from traiNNer.utils.atomic import atomic_write
from traiNNer.utils.logging import get_logger

Scalars = Callable[[Mapping[str, float], int], None]
"""Adds points to TensorBoard's curves: values by name, and the iteration."""


class Journal:
    """Tells decisions to people. A file that cannot be written is reported once, and the run goes on.

    Args:
        file: gets a line of JSON for each decision; None for none, as in all processes but the first.
        scalars: takes points of curves.
    """

    def __init__(self, file: Path | None, scalars: Scalars) -> None:
        self._file, self._scalars = file, scalars
        self._broken = False
        self._told: set[str] = set()
        """Lines of the iteration that the run goes on after: a stop that is decided again has its line already."""

    def resume(self, iteration: int) -> None:
        """Drop the lines of iterations that come again, after a resume from an earlier one."""
        if self._file is None:
            return
        with _Reported(self):
            if self._file.exists():
                text = self._file.read_text(encoding="utf-8", errors="replace")
                kept = [line for line in text.splitlines() if _iteration(line) <= iteration]
                self._told = {line for line in kept if _iteration(line) == iteration}
                if text != (clean := "".join(f"{line}\n" for line in kept)):  # a last line may lack its end
                    atomic_write(self._file, clean)

    def write(self, name: str, decision: Decision, changes: Sequence[Change], iteration: int) -> None:
        """Write down a decision and what it changed."""
        get_logger().info("Automation %s: %s", name, decision.text)
        self.curve(changes, iteration)
        if self._file is None:
            return
        with _Reported(self), self._file.open("a", encoding="utf-8") as file:
            for change in changes or [Change(what="note")]:
                line = {
                    "iteration": iteration,
                    "automation": name,
                    "what": change.what,
                    "from": _plain(change.before),
                    "to": _plain(change.after),
                    "reason": decision.reason,
                    "text": decision.text,
                    "evidence": {key: _plain(value) for key, value in decision.evidence.items()},
                }
                if (text := json.dumps(line)) not in self._told:
                    file.write(text + "\n")

    def curve(self, changes: Sequence[Change], iteration: int) -> None:
        """Add what was changed to the curves alone."""
        values = {f"automation/{change.what}": change.after for change in changes if change.after is not None}
        if values:
            self._scalars(values, iteration)

    def report(self, error: OSError) -> None:
        """Say once that decisions are not written."""
        if not self._broken:
            get_logger().error("decisions are missing in %s, it cannot be written: %s", self._file, error)
        self._broken = True


class _Reported:
    """A context that reports errors of the file system."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, OSError):
            self._journal.report(error)
            return True
        return False


def _iteration(line: str) -> float:
    """That of a line; a torn one, of a killed run, goes."""
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _plain(value: Any) -> Any:
    """A value as JSON has it: not finite is text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
