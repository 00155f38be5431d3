"""The batch-size automation and the recovery from too little memory in whole runs."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs.automated_runs import decisions, everything, log_of, same, state_of, three_phases, told, weights
from tests.runs.memory_runs import ERROR, Record, Seen, fits, replay, seen, simulated
from traiNNer.models.player import Player

__all__ = ["fits", "replay", "seen"]  # fixtures

Run = Callable[..., int]
ROOT = Path(__file__).resolve().parents[2]
Fits = Callable[[Callable[[int], int]], None]
Replay = Callable[..., None]

BATCHES = {"adjustment_frequency": 10, "max_batch_size": 6}


@pytest.fixture
def automated(options: dict[str, Any]) -> dict[str, Any]:
    """60 iterations of four images with nothing but the batch size's automation."""
    options["datasets"]["train"]["batch_size_per_gpu"] = 4
    options["train"] |= {"total_iter": 60, "training_automations": {"DynamicBatchSizeOptimizer": dict(BATCHES)}}
    options["val"]["val_enabled"] = False
    options["logger"] |= {"save_checkpoint_freq": 30, "print_freq": 100}
    return options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiments" / "tiny"


def assert_equal(one: Path, two: Path, iteration: int = 60) -> None:
    assert decisions(one) == decisions(two)
    assert same(weights(one, iteration), weights(two, iteration))
    first, second = state_of(one, iteration), state_of(two, iteration)
    assert first.keys() == second.keys()
    assert not [name for name in first if not same(first[name], second[name])]


def test_a_run_goes_on_with_the_size_that_fits(
    automated: dict[str, Any], run_training: Run, folder: Path, seen: Seen, fits: Fits, replay: Replay
) -> None:
    """From iteration 23 on, no more than two images fit."""
    automated["train"]["training_automations"]["DynamicBatchSizeOptimizer"] |= {"max_adjustments": 0}
    replay(simulated(seen))
    fits(lambda iteration: 2 if iteration >= 23 else 99)
    assert run_training(automated) == 0
    assert seen.sizes == [[4]] * 23 + [[2]] * 37
    assert seen.passes[22:27] == [4, 2, 2, 2, 2]
    log = log_of(folder)
    text = "iteration 23: out of memory in the step of net_g with batches of 4; it was run again in pieces of 2"
    assert log.count(f"[WARNING] {text}\n") == 1
    told_of = "Automation DynamicBatchSizeOptimizer: Batch size adjusted from 4 to 2 due to out of memory"
    assert told(folder)[-1] == told_of
    assert "not the same as without pieces" not in log
    assert "Traceback" not in log
    (line,) = decisions(folder)  # with no adjustment allowed: it does not count
    assert (line["iteration"], line["automation"], line["what"]) == (23, "DynamicBatchSizeOptimizer", "batch_size")
    assert (line["from"], line["to"], line["reason"]) == (4, 2, "out of memory")
    assert line["evidence"] == {"failed": 4, "fitted": 2, "failures": 1}
    assert state_of(folder, 60)["loader"]["consumed"] == 23 * 4 + 37 * 2


def test_no_sample_is_lost(
    automated: dict[str, Any], run_training: Run, tmp_path: Path, seen: Seen, fits: Fits, replay: Replay
) -> None:
    """The run with failures sees the images of one without any, in their order."""
    automated["datasets"]["train"]["num_worker_per_gpu"] = 1  # reads ahead, in the sizes of then
    replay(simulated(seen))
    fits(lambda iteration: 1 if iteration == 11 else 3 if 35 <= iteration < 45 else 99)
    assert run_training(automated, "--name", "failing") == 0
    failing, sizes = list(seen.paths), list(seen.sizes)
    assert len({max(size) for size in sizes}) > 2
    assert len(decisions(tmp_path / "experiments" / "failing")) > 2
    seen.paths.clear()
    automated["train"] |= {"training_automations": {}, "total_iter": -(-len(failing) // 4)}
    fits(lambda iteration: 99)
    assert run_training(automated, "--name", "undisturbed") == 0
    assert failing == seen.paths[: len(failing)]
    assert Counter(failing) == Counter(seen.paths[: len(failing)])


@pytest.mark.parametrize(("failing", "at"), [(23, 20), (5, 26)])
def test_a_resume_after_a_failure_is_the_straight_run(
    automated: dict[str, Any],
    run_training: Run,
    tmp_path: Path,
    seen: Seen,
    fits: Fits,
    replay: Replay,
    failing: int,
    at: int,
) -> None:
    """The failure is after the checkpoint, or before it; the size, not the option file's, holds through the resume."""
    automated["logger"]["save_checkpoint_freq"] = at
    straight, resumed = (tmp_path / "experiments" / name for name in ("straight", "resumed"))
    fits(lambda iteration: 2 if iteration == failing else 99)
    record = simulated(seen)
    replay(record)
    assert run_training(automated, "--name", "straight") == 0
    record.make = None
    assert [line["reason"] for line in decisions(straight)].count("out of memory") == 1
    before = list(seen.sizes)
    shutil.copytree(straight, resumed)
    del seen.sizes[at:]
    replay(record, at)
    assert run_training(automated, "--name", "resumed", "--resume", str(at)) == 0
    assert seen.sizes == before
    assert before[at] != [4]
    assert_equal(straight, resumed)


def test_without_the_automation_one_message_says_how_to_go_on(
    automated: dict[str, Any],
    run_training: Run,
    folder: Path,
    fits: Fits,
    capfd: pytest.CaptureFixture[str],
) -> None:
    automated["train"]["training_automations"] = {}
    automated["logger"]["save_checkpoint_freq"] = 5
    fits(lambda iteration: 2 if iteration == 7 else 99)
    assert run_training(automated) == 1
    message = capfd.readouterr().err
    assert message.count("out of memory at iteration 7: the passes of net_g do not fit with 4 images of 16x16 px") == 1
    assert "lower batch_size_per_gpu or lq_size" in message
    assert "or turn on the automation DynamicBatchSizeOptimizer" in message
    assert "resume with: python train.py -opt " in message
    assert message.rstrip().endswith(" --auto_resume")
    assert "Traceback" not in message + log_of(folder)
    assert not list(folder.rglob("*crash*"))


def test_an_optimizers_step_ends_the_run_with_the_command_that_resumes(
    automated: dict[str, Any],
    run_training: Run,
    folder: Path,
    seen: Seen,
    replay: Replay,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    automated["logger"]["save_checkpoint_freq"] = 10
    usual = Player.commit

    def commit(self: Player, *arguments: Any) -> None:
        if len(seen.sizes) == 14:
            raise MemoryError(ERROR)
        usual(self, *arguments)

    replay(simulated(seen))
    monkeypatch.setattr(Player, "commit", commit)
    assert run_training(automated) == 1
    message = capfd.readouterr().err
    assert message.count("the optimizer's step of net_g ran out of memory (Tried to allocate 2.00 GiB") == 1
    assert "resume with: python train.py -opt " in message
    assert message.rstrip().endswith(" --auto_resume")
    assert "Traceback" not in message + log_of(folder)
    monkeypatch.setattr(Player, "commit", usual)
    replay(simulated(seen), 10)
    assert run_training(automated, "--auto_resume") == 0
    assert "resumed from iteration 10 of" in log_of(folder)


def test_one_image_that_does_not_fit_ends_the_run(
    automated: dict[str, Any],
    run_training: Run,
    folder: Path,
    seen: Seen,
    fits: Fits,
    replay: Replay,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Before the first checkpoint: there is nothing to resume from."""
    replay(simulated(seen))
    fits(lambda iteration: 0 if iteration == 7 else 99)
    assert run_training(automated) == 1
    message = capfd.readouterr().err
    assert message.count("out of memory at iteration 7: the passes of net_g do not fit with 4 images of 16x16 px") == 1
    assert "nor with 1 at a time" in message
    assert "; lower lq_size (gt_size), or set use_amp" in message
    assert "resume with" not in message
    assert "turn on the automation" not in message
    assert "Traceback" not in message + log_of(folder)


@pytest.mark.slow
def test_all_five_replayed(
    options: dict[str, Any], run_training: Run, tmp_path: Path, seen: Seen, fits: Fits, replay: Replay
) -> None:
    """A GAN in three phases, others who take memory, a failure; resumed between the two and after both."""
    three_phases(options)
    options["train"]["total_iter"] = 110
    options["train"]["training_automations"] = everything() | {
        "DynamicBatchSizeOptimizer": {**BATCHES, "lr_scaling": "sqrt", "safety_margin": 0.02}
    }
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    options["train"]["losses"][-1] |= {"discriminator_start_iter": 102, "start_iter": 105}
    options["logger"] |= {"save_checkpoint_freq": 26}
    straight = tmp_path / "experiments" / "straight"
    fits(lambda iteration: 1 if iteration == 58 else 99)
    record = simulated(seen, most=lambda iteration: 1220 if 33 < iteration < 60 else 100)
    replay(record)
    assert run_training(options, "--name", "straight") == 0
    record.make = None
    lines = decisions(straight)
    assert {line["automation"] for line in lines} == {
        "AdaptiveGradientClipping",
        "IntelligentLearningRateScheduler",
        "DynamicLossScheduling",
        "DynamicBatchSizeOptimizer",
    }
    changes = [(line["iteration"], line["to"], line["reason"]) for line in lines if line["what"] == "batch_size"]
    reasons = {reason for _, _, reason in changes}
    assert {"free VRAM", "high VRAM usage", "out of memory"} <= reasons, changes
    assert "Traceback" not in log_of(straight)
    sizes = list(seen.sizes)
    for at in (52, 78):
        resumed = tmp_path / "experiments" / f"resumed{at}"
        shutil.copytree(straight, resumed)
        del seen.sizes[at:]
        replay(record, at)
        assert run_training(options, "--name", resumed.name, "--resume", str(at)) == 0
        assert seen.sizes == sizes
        assert_equal(straight, resumed, 110)


def test_a_record_is_of_its_run() -> None:
    """What is replayed has nothing of its own."""
    record = Record()
    ticks = record.clock()
    next(ticks)
    with pytest.raises(KeyError):
        next(ticks)
    with pytest.raises(KeyError):
        record.read()


RANKS = """
import os, sys
import torch
from traiNNer.cli import ending_with_message, parse_train
from traiNNer.models.sr_model import SRModel
from traiNNer.run import train

rank, usual, sizes, paths = int(os.environ["RANK"]), SRModel.feed_data, [], []

def hook(module, inputs, output):
    if torch.is_grad_enabled() and rank == 1 and len(sizes) == 7 and len(inputs[0]) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

def feed_data(self, batches):
    if not sizes:
        self.net_g.register_forward_hook(hook)
    sizes.append(len(batches[0]["lq"]))
    paths.extend(batches[0]["lq_path"])
    usual(self, batches)

SRModel.feed_data = feed_data
code = ending_with_message(lambda: train(parse_train(sys.argv[2:])))
open(f"{sys.argv[1]}/rank{rank}.txt", "w").write(repr((sizes, paths)))
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_of_two_processes_runs_out_of_memory(
    automated: dict[str, Any],
    run_training: Run,
    write_options: Callable[..., Path],
    tmp_path: Path,
    folder: Path,
    seen: Seen,
) -> None:
    """Both go on with the smaller size, and together they read what one process would, in its order."""
    section = {"max_adjustments": 0, "adjustment_frequency": 10}
    automated["train"] |= {"total_iter": 12, "training_automations": {"DynamicBatchSizeOptimizer": section}}
    (tmp_path / "ranks.py").write_text(RANKS, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    own = [str(tmp_path / "ranks.py"), str(tmp_path), "-opt", str(write_options(automated)), "--launcher", "pytorch"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*torchrun, *own], capture_output=True, text=True, env=environment, timeout=280, check=False
    )
    assert result.returncode == 0, result.stderr
    ranks = [ast.literal_eval((tmp_path / f"rank{rank}.txt").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert [sizes for sizes, _ in ranks] == [[4] * 7 + [2] * 5] * 2
    (line,) = decisions(folder)
    assert (line["iteration"], line["from"], line["to"], line["reason"]) == (7, 4, 2, "out of memory")
    text = "iteration 7: out of memory in the step of net_g with batches of 4; it was run again in pieces of 2"
    assert log_of(folder).count(text) == 1
    assert "Traceback" not in log_of(folder) + result.stderr
    read = [path for pair in zip(*(paths for _, paths in ranks), strict=True) for path in pair]
    automated["train"] |= {"total_iter": 19, "training_automations": {}}
    assert run_training(automated, "--name", "one") == 0
    assert read == seen.paths[: len(read)]
