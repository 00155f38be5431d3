"""What a resume must know of a run beside its parts: the seed, and the options it was made with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

SILENT = ("auto_resume", "path.resume_state")
"""Options whose change means nothing: they are how a run is resumed."""


class RunRecord:
    """Seed, resolved options and learning rates of a run, in its checkpoints. A resume compares the options.

    `normalization` is that of fields, which a resume takes from here: files may have come since.
    """

    def __init__(
        self,
        seed: int,
        options: dict[str, Any],
        rates: dict[str, Any] | None = None,
        normalization: dict[str, Any] | None = None,
    ) -> None:
        self.seed, self._options, self._rates = seed, options, rates or {}
        self._more = {} if normalization is None else {"normalization": normalization}
        self.changes: list[str] = []
        """One line for each option that differs from those of the checkpoint that was loaded."""

    def state_dict(self) -> dict[str, Any]:
        """The seed, the rates that are in force, and the options as JSON."""
        return {"seed": self.seed, "options": json.dumps(self._options), "rates": self._rates, **self._more}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare with a checkpoint; the present seed and options stay."""
        old, new = json.loads(state_dict["options"]), json.loads(json.dumps(self._options))
        old["manual_seed"], new["manual_seed"] = state_dict["seed"], self.seed
        self.changes = [
            f"{key}: {_shown(before)} by the checkpoint's options, {_shown(now)} by the current ones"
            for key, before, now in sorted(_differences(old, new), key=lambda each: each[0])
            if key not in SILENT
        ]


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, old and new value of every option that differs; a section that only one side has is one difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif _is_list_of_sections(old) and _is_list_of_sections(new):
        for index, (before, now) in enumerate(zip_longest(old, new)):
            yield from _differences(before, now, f"{path}[{index}]")
    elif old != new:
        yield path, old, new


def _is_list_of_sections(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return "a section"
    if _is_list_of_sections(value):
        return "a section" if len(value) == 1 else f"{len(value)} sections"
    return "absent" if value is None else value
