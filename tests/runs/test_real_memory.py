"""Whole runs whose memory is real: a batch that grows and shrinks with what there is, and a step that does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.runs.automated_runs import decisions, log_of, told

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


@pytest.fixture
def wide(options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A network whose images take much memory, and 36 of them."""
    from skimage.data import astronaut

    picture = Image.fromarray(astronaut())
    for number in range(36):
        left, top = 80 * (number % 6), 80 * (number // 6)
        tile = picture.crop((left, top, left + 64, top + 64))
        for kind, image in (("gt", tile), ("lq", tile.resize((32, 32)))):
            (tmp_path / kind).mkdir(exist_ok=True)
            image.save(tmp_path / kind / f"{number:02}.png")
    folders = {f"dataroot_{kind}": str(tmp_path / kind) for kind in ("gt", "lq")}
    options["datasets"]["train"] |= {**folders, "gt_size": 64, "batch_size_per_gpu": 2}
    options["network_g"] = {"type": "Wide"}
    options["train"] |= {"ema_decay": 0, "optim_g": {"type": "SGD", "lr": 1e-3}, "scheduler": None}
    options["val"]["val_enabled"] = False
    options["logger"] |= {"save_checkpoint_freq": 10_000, "print_freq": 100}
    return options


@pytest.fixture
def program(write_options: Callable[..., Path]) -> Callable[..., tuple[dict[str, Any], str]]:
    """Runs the program in a process of its own; what it found and what it wrote."""

    def run(values: dict[str, Any], *own: Any, name: str) -> tuple[dict[str, Any], str]:
        path = write_options(values, f"{name}.yml")
        script = [sys.executable, str(ROOT / "tests" / "runs" / "real_memory.py"), *map(str, own)]
        # one arena, and every large block from the system and back to it: what is freed is no longer resident
        allocator = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(MIB)}
        result = subprocess.run(
            [*script, "-opt", str(path), "--name", name],
            capture_output=True,
            text=True,
            env={**os.environ, **allocator, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            timeout=390,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1]), result.stderr

    return run


LARGEST, TAKEN = 13, 160


def test_the_batch_follows_what_memory_there_is(
    wide: dict[str, Any], program: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    """From 2 to within 10 % of the largest that fits, smaller within an interval of another's taking memory, and back.

    Needs Linux, 2 GiB of memory and /proc. Readings are the kernel's, by the shipped reader. The limit is that of a
    control group of this test's own, so that what else runs on the machine does not count: a folder in the format of
    version 2, in which the use is the resident memory of the run and of the process that takes some. The limit is laid
    between what 13 and 14 images take, by readings at sizes that were set by hand in a run before.
    """
    wide["train"]["total_iter"] = 21
    hand, _ = program(wide, "hand", 2, 6, LARGEST - 1, LARGEST, LARGEST + 1, name="hand")
    most = {int(size): taken for size, taken in hand.items()}
    assert most[LARGEST + 1] - most[2] > 150 * MIB
    limit = int((most[LARGEST] + most[LARGEST + 1]) / 2 / 0.8 / MIB)
    wide["train"] |= {
        "total_iter": 400,
        "training_automations": {"DynamicBatchSizeOptimizer": {"adjustment_frequency": 10}},
    }
    found, _ = program(wide, "group", limit, TAKEN, LARGEST, tmp_path / "group", name="group")
    folder = tmp_path / "experiments" / "group"
    assert "grown back" in found, (decisions(folder), found)
    sizes, taken = found["sizes"], found["taken"]
    assert sizes[0] == 2
    assert 0.9 * LARGEST <= sizes[taken] <= 1.1 * LARGEST
    assert found["shrunk"] - taken <= 10
    shrink = next(line for line in decisions(folder) if line["iteration"] == found["shrunk"])
    assert (shrink["reason"], shrink["to"]) == ("high VRAM usage", sizes[found["shrunk"]])
    assert shrink["to"] < 0.7 * LARGEST
    assert max(sizes[found["shrunk"] : found["given back"]]) == shrink["to"]
    assert 0.9 * LARGEST <= sizes[-1] <= 1.1 * LARGEST
    assert "out of memory" not in log_of(folder)
    assert "Traceback" not in log_of(folder)


def test_a_step_that_does_not_fit_is_no_end_of_a_run(
    wide: dict[str, Any], program: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    """From iteration 5 on the address space has room for a third of what a batch of 8 takes."""
    wide["datasets"]["train"]["batch_size_per_gpu"] = 8
    wide["train"] |= {"total_iter": 12, "training_automations": {"DynamicBatchSizeOptimizer": {}}}
    found, message = program(wide, "limit", 5, name="limited")
    assert found["room"] > 20 * MIB
    folder = tmp_path / "experiments" / "limited"
    log = log_of(folder)
    assert "[WARNING] iteration 6: out of memory in the step of net_g with batches of 8; it was run again" in log
    lines = [line for line in decisions(folder) if line["reason"] == "out of memory"]
    assert (lines[0]["iteration"], lines[0]["from"]) == (6, 8)
    assert lines[-1]["to"] < 8
    assert any("Batch size adjusted from 8 to " in line for line in told(folder))
    assert "done: 12 iterations, " in log
    assert "Traceback" not in log + message
