"""Files that are whole or not there: written beside their place, synced to the disk, then renamed.

A process that is killed while it writes leaves a temporary file and nothing under the final name;
`remove_leftovers` finds such files again by their mark.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MARK = ".trainner.tmp"
"""Ends the names of temporary files, and of nothing else."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts to rename; virus scanners and indexers of Windows hold new files for moments."""


class FileSet:
    """Files that appear together: all are written and synced before the first gets its final name.

    The last one added is renamed last, after the others are on the disk for good, so it can vouch for them. Leaving
    the block without `commit`, or by an exception, leaves no new file behind:

        with FileSet() as files:
            files.add(weights).write_bytes(data)
            files.add(state).write_bytes(mark)
            files.commit()
    """

    def __init__(self) -> None:
        self._files: dict[Path, Path] = {}  # final name -> temporary file

    def add(self, path: Path) -> Path:
        """The temporary file, not made yet, that will become `path`; its folder must exist.

        Raises:
            ValueError: `path` is in the set already.
        """
        if path in self._files:
            raise ValueError(f"{path} is written twice")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{MARK}")
        self._files[path] = temporary
        return temporary

    def written(self, path: Path) -> Path:
        """The temporary file that was added for `path`."""
        return self._files[path]

    def commit(self) -> None:
        """Give all files their final names, the last one added last.

        Raises:
            OSError: not all could be renamed. Those that were, and did not replace anything, are gone again.
        """
        for temporary in self._files.values():
            _sync_file(temporary)
        new: list[Path] = []
        *others, last = self._files
        try:
            for path in others:
                _place(self._files[path], path, new)
            _sync_folders(path.parent for path in others)
            _place(self._files[last], last, new)
        except BaseException:
            for path in new:
                with suppress(OSError):
                    path.unlink()
            raise
        _sync_folders([last.parent])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for temporary in self._files.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Replace a file's content, all or nothing; text is written as UTF-8. The folder must exist.

    Raises:
        OSError: it could not be written; what was under the name is untouched.
    """
    with FileSet() as files:
        files.add(path).write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
        files.commit()


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete the temporary files that killed processes left in a folder; returns those that are gone."""
    removed: list[Path] = []
    for path in sorted(folder.glob(f".*{MARK}")):
        with suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def _place(temporary: Path, path: Path, new: list[Path]) -> None:
    is_new = not path.exists()
    for pause in (*_PAUSES, None):
        try:
            temporary.replace(path)
            break
        except PermissionError:
            if pause is None:
                raise
            time.sleep(pause)
    if is_new:
        new.append(path)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folders(folders: Iterable[Path]) -> None:
    """Make renames survive a power cut; Windows does so by itself and opens no folders."""
    if os.name == "nt":
        return
    for folder in sorted(set(folders)):
        with suppress(OSError):  # some network file systems cannot
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
