"""Automations in real runs: what they change, what is written down, resumes, and mistakes that end none of them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Run = Callable[..., int]

CLIPPING = "traiNNer.training_automations.adaptivegradientclipping_automation.AdaptiveGradientClipping"


def decisions(folder: Path) -> list[dict[str, Any]]:
    file = folder / "automations.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def log_of(folder: Path) -> str:
    return (folder / "train.log").read_text(encoding="utf-8")


def weights(folder: Path, iteration: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "models" / f"net_g_ema_{iteration}.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture
def automated(options: dict[str, Any]) -> dict[str, Any]:
    """60 iterations with automations that have something to do."""
    options["train"] |= {
        "total_iter": 60,
        "grad_clip": True,
        "training_automations": {
            "AdaptiveGradientClipping": {"initial_threshold": 0.05, "min_threshold": 0.001, "max_threshold": 10.0},
            "IntelligentLearningRateScheduler": {
                "plateau_patience": 10, "improvement_threshold": 0.9, "adaptation_threshold": 0.95,
            },
            "early_stopping": {"patience": 1000, "warmup_iterations": 0},
        },
    }  # fmt: skip
    options["val"]["val_freq"] = 25
    options["logger"] |= {"save_checkpoint_freq": 30, "print_freq": 7, "use_tb_logger": True}
    return options


def test_thresholds_follow_the_gradients(automated: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    assert run_training(automated) == 0
    folder = tmp_path / "experiments" / "tiny"
    lines = [line for line in decisions(folder) if line["what"] == "clip_threshold/net_g"]
    assert lines
    assert lines[0].keys() == {"iteration", "automation", "what", "from", "to", "reason", "text", "evidence"}
    assert lines[0]["from"] == 0.05
    assert all(one["to"] == two["from"] for one, two in itertools.pairwise(lines))
    text = r"\[INFO\] Automation AdaptiveGradientClipping: grad_clip_threshold adjusted from [\d.]+ to [\d.]+ due to "
    assert len(re.findall(text, log_of(folder))) == len(lines)
