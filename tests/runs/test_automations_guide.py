"""The complete example of the automations guide, and its block for 12 GB: both run with other folders and lengths."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.config.test_users_files import COMPLETE
from traiNNer.cli import ending_with_message, parse_train
from traiNNer.run import train

RTX_3060 = """
training_automations:
  enabled: true

  IntelligentLearningRateScheduler:
    enabled: true
    plateau_patience: 1000
    target_vram_usage: 0.80  # Conservative for 12GB VRAM

  DynamicBatchSizeOptimizer:
    enabled: true
    target_vram_usage: 0.80
    safety_margin: 0.10
    min_batch_size: 1
    max_batch_size: 16

  AdaptiveGradientClipping:
    enabled: true
    initial_threshold: 1.0

  IntelligentEarlyStopping:
    enabled: true
    patience: 2000
    monitor_metric: "val/psnr"
"""
NAME = "2xParagonSR2_Nano_TrainingAutomations"


@pytest.fixture
def guide(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The complete example with the folders of some photographs, and weights that need no download."""
    monkeypatch.chdir(tmp_path)  # its results have relative paths
    values = yaml.safe_load(COMPLETE)
    for phase, folder in (("train", photos), ("val", photos / "val")):
        values["datasets"][phase] |= {f"dataroot_{kind}": str(folder / kind) for kind in ("gt", "lq")}
    values["losses"][1]["pretrained"] = False
    return values


def shortened(values: dict[str, Any]) -> dict[str, Any]:
    """Four iterations on small crops, two images a step."""
    values["datasets"]["train"] |= {"lq_size": 8, "gt_size": 16, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
    values["datasets"]["val"]["num_worker_per_gpu"] = 0
    values["train"]["total_iter"] = values["val"]["val_freq"] = 4
    values["logger"] |= {"print_freq": 2, "save_checkpoint_freq": 4}
    return values


def run(values: dict[str, Any], *arguments: str) -> int:
    Path("options.yml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return ending_with_message(lambda: train(parse_train(["options.yml", *arguments])))


def log_of(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err


def test_the_complete_example_trains(guide: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(shortened(guide)) == 0
    log = log_of(capfd)
    assert "ERROR" not in log
    assert "cannot stop this run of 4 iterations: min_iterations 5000 last until iteration 5000" in log
    folder = Path("experiments") / NAME
    assert (folder / "log" / "train.log").exists()
    assert (folder / "models" / "net_g_best_psnr.safetensors").exists()


def test_the_block_for_twelve_gigabytes_trains(guide: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    del guide["train"]["training_automations"]
    assert run(shortened(guide) | yaml.safe_load(RTX_3060)) == 0
    log = log_of(capfd)
    assert "ERROR" not in log
    assert "target_vram_usage: belongs to DynamicBatchSizeOptimizer and has no effect here" in log
    assert "batch sizes from 1 to 8, now 2; larger while use stays below 70%, smaller above 80%" in log


@pytest.mark.parametrize(("images", "told"), [(392, False), (401, True)])
def test_whether_the_complete_example_can_stop_early(
    guide: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], images: int, told: bool
) -> None:
    """Its 1,000 epochs are its 50,000 iterations of 8 images or more, unless the set has fewer than 400."""
    for kind in ("gt", "lq"):
        (first, *_) = sorted(Path(guide["datasets"]["train"][f"dataroot_{kind}"]).glob("*.png"))
        (tmp_path / kind).mkdir()
        for number in range(images):
            shutil.copy(first, tmp_path / kind / f"{number:03}.png")
        guide["datasets"]["train"][f"dataroot_{kind}"] = kind
    guide["datasets"]["train"] |= {"lq_size": 32, "gt_size": 64}

    assert run(guide, "--check") == 0

    line = "cannot stop this run of 50000 iterations: min_epochs 1000 last until iteration 51000"
    log = log_of(capfd)
    assert (line in log) is ("cannot stop" in log) is told
