"""Loader processes under signals: real process groups, real kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .pairs import Make

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="process groups and SIGKILL are POSIX")]

Start = Callable[..., subprocess.Popen[str]]

PROGRAM = """
import signal, sys, time
import cv2, numpy
from traiNNer.data import TrainLoader, build_dataset

def main():
    folder, method, how = sys.argv[1:]
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    cv2.setNumThreads(4)  # OpenCV's threads are there when the workers are forked
    cv2.GaussianBlur(numpy.zeros((3000, 3000), numpy.float32), (9, 9), 2)
    options = {"type": "PairedImageDataset", "scale": 2, "lq_size": 4}
    dataset = build_dataset(options | {"dataroot_gt": folder + "/gt", "dataroot_lq": folder + "/lq"})
    workers = {"num_workers": 2, "prefetch_factor": 20, "multiprocessing_context": method}
    # With 64, what the workers have read ahead fills the pipe, and they wait to hand it over.
    loader = TrainLoader(dataset, batch_size=64 if how == "busy" else 4, seed=0, **workers)
    if how == "early":
        print("ready", flush=True)
    for number in range(100_000):
        loader.next_batches()
        if number == 3:
            print("ready", flush=True)
            time.sleep(60 if how == "busy" else 0)
        if stop or how == "crash" and number > 3:
            break
        time.sleep(0.01)
    if how == "crash":
        raise ZeroDivisionError
    for _ in range(100):  # more than was read ahead: the workers work on
        loader.next_batches()
    print("finished", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def started(tmp_path: Path, make: Make) -> Iterator[Start]:
    """Starts the program in a process group of its own and waits for its workers (`early`: does not wait)."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    processes: list[subprocess.Popen[str]] = []

    def start(method: str, how: str = "late") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(program), str(tmp_path), method, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("method", "number"),
    [("fork", signal.SIGINT), ("fork", signal.SIGTERM), ("spawn", signal.SIGINT), ("forkserver", signal.SIGTERM)],
)
def test_a_signal_to_the_whole_group_stops_the_main_process_alone(
    method: str, number: signal.Signals, started: Start
) -> None:
    process = started(method)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "finished\n"), errors
    assert "Traceback" not in errors


def test_ctrl_c_while_workers_are_being_spawned(started: Start) -> None:
    process = started("spawn", "early")
    time.sleep(0.6)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.splitlines()[-1:]) == (0, ["finished"]), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_die_with_a_killed_parent(method: str, started: Start) -> None:
    process = started(method, "busy")
    time.sleep(2)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline, [worker for worker in workers if worker.is_running()]
        time.sleep(0.05)


def test_a_crash_with_workers_running_ends_the_program(started: Start) -> None:
    process = started("fork", "crash")
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "ZeroDivisionError" in errors


def test_the_benchmark_reports() -> None:
    import json

    program = Path(__file__).parents[2] / "benchmarks" / "data_loading.py"
    arguments = ["--pairs", "4", "--seconds", "0.2", "--rounds", "1", "--workers", "1"]
    output = subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, check=True
    ).stdout
    figures, readable = output.splitlines()
    assert json.loads(figures)["ratio"] > 0.1
    assert readable.startswith("1 worker(s): ")
