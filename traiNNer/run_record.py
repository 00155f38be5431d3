"""What a resume must know of a run beside its parts: the seed, and the options it was made with."""

from __future__ import annotations

import json
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
        old, new = _leaves(json.loads(state_dict["options"])), _leaves(json.loads(json.dumps(self._options)))
        if state_dict["seed"] != self.seed:
            old["manual_seed"], new["manual_seed"] = state_dict["seed"], self.seed
        self.changes = [
            f"{key}: {old.get(key, 'absent')} by the checkpoint's options, {new.get(key, 'absent')} by the current ones"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and key not in SILENT
        ]


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every option that is not a section, by its path."""
    if isinstance(value, dict):
        items = [(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = [(f"{prefix}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {prefix: value}
    return {path: leaf for key, item in items for path, leaf in _leaves(item, key).items()}
