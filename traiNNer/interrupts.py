"""SIGINT and SIGTERM as a request to stop after the iteration."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from traiNNer.utils.logging import get_logger


@dataclass
class StopRequest:
    """Whether a stop was asked for, and by which signal."""

    signal_name: str = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Within, the first SIGINT or SIGTERM sets the request that is yielded; a second leaves the program at once.

    On Windows Ctrl-C is SIGINT, and Ctrl-Break (SIGBREAK) is treated like it.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request:
            os._exit(128 + number)
        request.signal_name = signal.Signals(number).name
        get_logger().info("%s: stopping after this iteration; once more to leave at once", request.signal_name)

    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    previous = {getattr(signal, name): signal.signal(getattr(signal, name), handle) for name in names}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
