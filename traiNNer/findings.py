"""Mistakes that independent checks find, each placed where the user can mend it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from traiNNer.config import Options
from traiNNer.utils.errors import ConfigError, Problem


class Findings:
    """Collects the mistakes of independent checks, each placed at its option's file and line."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._problems: list[Problem] = []

    @contextmanager
    def at(self, key: str) -> Iterator[None]:
        """Within, a `ConfigError` is noted as concerning the option `key`, and ends the block."""
        try:
            yield
        except ConfigError as error:
            found = [self._place(problem, key) for problem in error.problems]
            self._problems += [problem for problem in found if problem not in self._problems]

    @property
    def none(self) -> bool:
        """Whether nothing has been noted so far."""
        return not self._problems

    def raise_if_any(self) -> None:
        """Raises:
        ConfigError: with everything noted so far.
        """
        if self._problems:
            raise ConfigError(self._problems)

    def _place(self, problem: Problem, key: str) -> Problem:
        if problem.file is not None:  # a weights file or a state: the option that names it is what the user can change
            problem = Problem(key=problem.key, message=f"{problem.file}: {problem.message}")
        full = problem if problem.key.startswith(("--", key)) else problem.under(key)
        return full if full.key.startswith("--") else self._options.problem(full.key, full.message)
