"""The folders a run writes to: whether they can be used, and out of the way with what an earlier run left there."""

from __future__ import annotations

import os
import time
from pathlib import Path

from traiNNer.config import Options, RunPaths
from traiNNer.utils.errors import ConfigError, Problem


def check_folders(options: Options, paths: RunPaths) -> None:
    """Every folder that the options name can be made and written to, as far as that shows beforehand.

    Raises:
        ConfigError: those that cannot.
    """
    keys = ("models", "resume_models", "training_states", "log", "visualization")
    named = {key: getattr(paths, key) for key in keys if getattr(options.path, key) is not None}
    problems: list[Problem] = []
    for key, folder in {"experiments_root": paths.experiment, **named}.items():
        try:
            check_folder(folder)
        except ConfigError as error:
            problems += [problem.under(key) for problem in error.problems]
    if problems:
        raise ConfigError(problems)


def check_folder(folder: Path) -> None:
    """A folder can be made, or written to where it exists; nothing is tried.

    Raises:
        ConfigError: something speaks against it.
    """
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), folder)
    if there.exists() and not there.is_dir():
        raise ConfigError(f"found {folder}, but {there} is no folder; accepted: a folder to write to")
    effective = os.access in os.supports_effective_ids
    if there.exists() and not os.access(there, os.W_OK | os.X_OK, effective_ids=effective):
        raise ConfigError(f"found {folder}, but {there} may not be written to; accepted: a folder to write to")


def refuse_foreign_files(paths: RunPaths) -> None:
    """A fresh run moves its own folder's old files away; in folders elsewhere it would overwrite them.

    Raises:
        ConfigError: such a folder holds weights or states.
    """
    problems = []
    for key in ("models", "resume_models", "training_states"):
        folder: Path = getattr(paths, key)
        held = (
            [file for pattern in ("net_*_*.*", "*.state") for file in sorted(folder.glob(pattern))]
            if folder.is_dir()
            else []
        )
        if held and not folder.is_relative_to(paths.experiment):
            message = (
                f"found {held[0].name} of an earlier run in {folder}; accepted: an empty folder, or resuming that run"
            )
            problems.append(Problem(key=key, message=message))
    if problems:
        raise ConfigError(problems)


def move_away(folder: Path) -> Path | None:
    """Rename a folder of an earlier run; returns its new name, or None if there is no such folder.

    Raises:
        OSError: it cannot be renamed.
    """
    if not folder.exists():
        return None
    archived = _unused(folder.with_name(f"{folder.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}"))
    folder.rename(archived)
    return archived


def _unused(path: Path) -> Path:
    """The path, with a number added if there is something."""
    candidates = (path.with_name(f"{path.name}_{number}") for number in range(2, 1000))
    return path if not path.exists() else next(candidate for candidate in candidates if not candidate.exists())
