"""The errors a user can cause, as messages instead of tracebacks.

`ConfigError` (exit code 2) carries every mistake found in one go; `RunError` (exit code 1) says in one line why a run
cannot go on. Anything else that is raised is a fault of the program and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake: `FILE:LINE: key.path: what was found; what is accepted (did you mean X?)`."""

    message: str
    """What was found; what is accepted."""
    key: str = ""
    """Path of the option, such as `train.losses[2].reduction`; empty when it concerns no option."""
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = "" if self.file is None else f"{self.file}: " if self.line is None else f"{self.file}:{self.line}: "
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"

    def under(self, prefix: str) -> Problem:
        """The same problem with its key placed under `prefix`."""
        separator = "" if not self.key or not prefix or self.key.startswith("[") else "."
        return replace(self, key=f"{prefix}{separator}{self.key}")


class TraiNNerError(Exception):
    """Base of the errors that end a program with a message and no traceback."""

    exit_code = 1


class ConfigError(TraiNNerError):
    """What the user asked for cannot be done; all problems found are reported together. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = Problem(message=problems)
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))


class RunError(TraiNNerError):
    """A run that cannot go on, in one line. Exit code 1."""


def nearest(name: str, accepted: Iterable[str]) -> str:
    """` (did you mean X?)` for the closest accepted name, or an empty string when none is close."""
    spelled = {key.lower().replace("_", ""): key for key in accepted}
    close = difflib.get_close_matches(name.lower().replace("_", ""), spelled, n=1, cutoff=0.6)
    return f" (did you mean {spelled[close[0]]}?)" if close else ""
