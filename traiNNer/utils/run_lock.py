"""One process at a time in a run's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from traiNNer.utils.errors import ConfigError, Problem

LOCK_NAME = "run.lock"


class RunLock:
    """The operating system's lock on a file of the run's folder; it is gone with the process, however it ends.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._file: IO[str] | None = None

    def check(self) -> None:
        """See whether another process has the lock; changes nothing.

        Raises:
            ConfigError: it has, or the lock's file cannot be written.
        """
        if self._path.exists():
            self.take()
            self.release()

    def take(self) -> None:
        """Take the lock.

        Raises:
            ConfigError: another process has it, or its file cannot be written.
        """
        try:
            file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            message = f"{self._path} cannot be written ({error.strerror}); accepted: a run's folder to write to"
            raise ConfigError(Problem(key="name", message=message)) from None
        try:
            _lock(file)
        except OSError:
            file.close()
            message = f"{self._path.parent} is being trained in by another process; accepted: another name, or its end"
            raise ConfigError(Problem(key="name", message=message)) from None
        self._file = file

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
