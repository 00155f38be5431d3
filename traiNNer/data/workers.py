"""Loader processes: started so that they outlive Ctrl-C, and not their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker, util
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader

from traiNNer.utils.errors import RunError

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


def start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin an iteration; starts the workers if there are any."""
    if loader.num_workers and os.name != "nt":
        context = loader.multiprocessing_context or multiprocessing.get_context()
        if context.get_start_method() != "fork":
            resource_tracker.ensure_running()  # starting it unblocks the signals again
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


@contextmanager
def worker_death_as_run_error() -> Generator[None]:
    """A worker that was killed (most often by the system, for memory) ends the run with a message."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise _death(error) from error
    except (ConnectionError, EOFError, FileNotFoundError) as error:  # its batch was announced, but is gone with it
        raise _death(error) from error


def _death(error: Exception) -> RunError:
    words = " ".join(str(error).split())
    return RunError(f"a loader process died ({words}); where memory is short, lower num_worker_per_gpu")
