"""The run's log: one logger, `traiNNer`, to the terminal (rich) and to a text file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

LOGGER_NAME = "traiNNer"


def get_logger() -> logging.Logger:
    """The framework's logger; it has no handler until `configure_logging`."""
    return logging.getLogger(LOGGER_NAME)


def make_console() -> Console:
    """A console for the terminal; on a pipe or a file, plain lines that are not wrapped."""
    from rich.console import Console  # importing rich draws from Python's random generator

    interactive = sys.stderr.isatty()
    return Console(stderr=True, width=None if interactive else 1000, soft_wrap=not interactive)


def configure_logging(console: Console | None, file: Path | None = None) -> None:
    """Send the log to a console, and to a text file (UTF-8, appended) where one is given.

    Handlers of an earlier call are closed. With neither, messages are dropped: what ranks other than 0 do.
    """
    close_logging()
    logger = get_logger()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if console is not None:
        handler = _console_handler(console)
        handler.setLevel(logging.INFO)  # details, such as tracebacks, are for the file
        logger.addHandler(handler)
    if file is not None:
        file_handler = logging.FileHandler(file, encoding="utf-8")
        file_handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s] %(message)s"))
        logger.addHandler(file_handler)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def close_logging() -> None:
    """Close the log file and leave the logger as it was before `configure_logging`."""
    logger = get_logger()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def _console_handler(console: Console) -> logging.Handler:
    if console.is_terminal:
        from rich.logging import RichHandler

        return RichHandler(
            console=console, show_path=False, rich_tracebacks=False, highlighter=None, log_time_format="%H:%M:%S"
        )
    handler = logging.StreamHandler(console.file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s", "%H:%M:%S"))
    return handler
