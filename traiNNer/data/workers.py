"""Loader processes: started so that they outlive Ctrl-C, and not their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker, util
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from traiNNer.utils.errors import RunError

T = TypeVar("T")

_STOPPING = (signal.SIGINT, signal.SIGTERM)


def initialize_worker(_worker: int) -> None:
    """Run first in every loader process.

    Ctrl-C, and SIGTERM from a scheduler, reach the whole process group; only the main process answers them, by ending
    the iteration and saving, and for that it needs its batches.
    """
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    _calm_opencv()
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _calm_opencv() -> None:
    import cv2

    cv2.setNumThreads(0)  # not 1: that joins the pool's threads, which a forked process has not got, and hangs
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # an unreadable file is reported by name, by us


def _leave_with_parent() -> None:
    """A killed parent cannot tell its workers, and one that waits to hand over a batch would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def signals_held_back() -> Generator[None]:
    """SIGINT and SIGTERM wait until the block has ended; processes started in it never get them (POSIX).

    It covers the time until a worker has run `initialize_worker`, which with the spawn method takes seconds.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Deaths:
    """The death of a worker raises where a batch is waited for, and nowhere else.

    torch's SIGCHLD handler raises in whatever the main thread does when the signal comes: in the middle of a step, or
    of the loader's end, after the worker's broken pipe has been noticed.
    """

    def __init__(self) -> None:
        self._listening = False
        self._check: Callable[[int, FrameType | None], Any] | None = None

    def defer(self) -> None:
        """Stand before torch's handler; to be called before workers start. Once is enough."""
        if self._check or not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
            return
        signal_handling._set_SIGCHLD_handler()
        present = signal.getsignal(signal.SIGCHLD)
        if callable(present):
            self._check = present
            signal.signal(signal.SIGCHLD, self._answer)

    def heard_in(self, action: Callable[[], T]) -> T:
        """What the action returns. Not a context manager: entering and leaving one would be outside its `try`."""
        try:
            try:
                self._listening = True
                self._answer()
                return action()
            finally:
                self._listening = False
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise _death(error) from error
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # its batch was announced, but is gone with it
            raise _death(error) from error

    def _answer(self, number: int = 0, frame: FrameType | None = None) -> None:
        if self._listening and self._check is not None:
            try:
                self._check(number, frame)
            except RuntimeError:
                self._listening = False  # one is enough; the second would come while the first is answered
                raise


_deaths = _Deaths()


def start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin an iteration; starts the workers if there are any."""
    if loader.num_workers and os.name != "nt":
        context = loader.multiprocessing_context or multiprocessing.get_context()
        if context.get_start_method() != "fork":
            resource_tracker.ensure_running()  # starting it unblocks the signals again
    _deaths.defer()
    others = set(multiprocessing.active_children())
    with signals_held_back():
        iterator = iter(loader)
    workers = [process for process in multiprocessing.active_children() if process not in others]
    if workers:
        # A program that ends with the iterator alive, as a crashed one does, would send them SIGTERM and wait for ever.
        util.Finalize(iterator, _kill, args=(workers,), exitpriority=0)
    return iterator


def _kill(workers: list[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def draw(batches: Iterator[T]) -> T:
    """The next batch.

    Raises:
        RunError: a worker was killed (most often by the system, for memory), now or since the last batch.
    """
    return _deaths.heard_in(lambda: next(batches))


def _death(error: Exception) -> RunError:
    words = " ".join(str(error).split()) or type(error).__name__
    return RunError(f"a loader process died ({words}); where memory is short, lower num_worker_per_gpu")
