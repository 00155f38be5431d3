"""The batch-size automation in real runs, on readings of memory that are given."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs.automated_runs import decisions, log_of
from traiNNer import automation_setup
from traiNNer.models.sr_model import SRModel
from traiNNer.trainer import Trainer
from traiNNer.utils.memory import MemoryReading

Run = Callable[..., int]


class Memory:
    """A device of 1,000 bytes, with use that a test sets."""

    used = 100
    peak = 0
    error: Exception | None = None

    def read(self) -> MemoryReading:
        if self.error is not None:
            raise self.error
        most, self.peak = max(self.peak, self.used), 0
        return MemoryReading(used=most, reserved=most, total=1000)

    def restart(self) -> None:
        self.peak = 0

    def describe(self) -> str:
        return "given"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory()
    monkeypatch.setattr(automation_setup, "memory_reader", lambda device: made)
    return made


@pytest.fixture
def automated(options: dict[str, Any]) -> dict[str, Any]:
    options["datasets"]["train"] |= {"batch_size_per_gpu": 2, "gt_size": 16}
    options["train"] |= {
        "total_iter": 30,
        "training_automations": {"DynamicBatchSizeOptimizer": {"adjustment_frequency": 1000, "max_batch_size": 3}},
    }
    options["val"] |= {"val_freq": 1000, "metrics": {"psnr": {"type": "psnr"}}}
    options["logger"] |= {"save_checkpoint_freq": 30, "print_freq": 100}
    return options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiments" / "tiny"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each iteration."""
    seen: list[int] = []
    feed = SRModel.feed_data

    def feed_data(self: SRModel, batches: Any) -> None:
        seen.append(sum(len(batch["lq"]) for batch in batches))
        feed(self, batches)

    monkeypatch.setattr(SRModel, "feed_data", feed_data)
    return seen


def test_memory_of_saves_and_pictures_is_not_a_batchs(
    automated: dict[str, Any], run_training: Run, folder: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Trainer.save

    def save(self: Trainer) -> None:
        usual(self)
        memory.peak = 990

    monkeypatch.setattr(Trainer, "save", save)
    automated["logger"]["save_checkpoint_freq"] = 1
    automated["train"]["training_automations"]["DynamicBatchSizeOptimizer"]["adjustment_frequency"] = 10
    assert run_training(automated) == 0
    assert not [line for line in decisions(folder) if line["reason"] == "high VRAM usage"]
    assert [line for line in decisions(folder) if line["reason"] == "free VRAM"]


def test_memory_that_cannot_be_read_any_more_ends_no_run(
    automated: dict[str, Any], run_training: Run, folder: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Trainer.train

    def train(self: Trainer) -> None:
        memory.error = PermissionError("no /proc here")
        usual(self)

    monkeypatch.setattr(Trainer, "train", train)
    assert run_training(automated) == 0
    log = log_of(folder)
    assert log.count("Automation DynamicBatchSizeOptimizer: failed and is off for the rest of the run") == 1
    assert "PermissionError in reading the memory: no /proc here" in log
    assert "done: 30 iterations" in log


def grown(automated: dict[str, Any], run_training: Run, sizes: list[int]) -> None:
    automated["train"]["training_automations"]["DynamicBatchSizeOptimizer"]["adjustment_frequency"] = 10
    assert run_training(automated) == 0
    assert sizes[-1] == 3
    sizes.clear()
    automated["train"]["total_iter"] = 32


def test_a_resumed_run_says_with_which_size_it_goes_on(
    automated: dict[str, Any], run_training: Run, folder: Path, memory: Memory, sizes: list[int]
) -> None:
    grown(automated, run_training, sizes)
    assert run_training(automated, "--auto_resume") == 0
    assert sizes == [3, 3]
    after = log_of(folder).rpartition("resumed from")[2]
    assert "Automation DynamicBatchSizeOptimizer: goes on with batch_size 3 (by the option file 2)" in after


def test_a_size_that_the_automation_never_changed_is_the_option_files(
    automated: dict[str, Any], run_training: Run, folder: Path, memory: Memory, sizes: list[int]
) -> None:
    assert run_training(automated) == 0
    assert set(sizes) == {2}
    sizes.clear()
    automated["datasets"]["train"]["batch_size_per_gpu"] = 3
    automated["train"]["total_iter"] = 32
    assert run_training(automated, "--auto_resume") == 0
    assert sizes == [3, 3]


def test_images_that_do_not_fit_end_the_run_with_one_message(
    automated: dict[str, Any],
    run_training: Run,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from traiNNer.data import train_loader

    def full(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(train_loader, "unit_range_batch", full)
    assert run_training(automated) == 1
    message = capfd.readouterr().err
    assert re.search(r"ran out of memory \(.*20\.00 MiB", message)
    assert "Traceback" not in message
