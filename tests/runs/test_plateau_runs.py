"""ReduceLROnPlateau in a run: driven by validations, composed with warm-up, and the same over a resume."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Run = Callable[..., int]

PLATEAU = {
    "type": "ReduceLROnPlateau",
    "mode": "max",
    "factor": 0.5,
    "patience": 1,
    "threshold": 100.0,  # dB: nothing is an improvement
    "threshold_mode": "abs",
}


@pytest.fixture
def plateau(options: dict[str, Any]) -> dict[str, Any]:
    """A validation in each of 8 iterations; the rate halves at every second one from iteration 3 on."""
    options["train"] |= {"scheduler": PLATEAU, "warmup_iter": 4, "optim_g": {"type": "AdamW", "lr": 8e-3}}
    options["val"]["val_freq"] = 1
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 8}
    return options


def rates(log: str) -> dict[int, float]:
    return {int(at): float(rate) for at, rate in re.findall(r"\[iter (\d+)/.* lr net_g (\S+)", log)}


def test_it_follows_validations_and_composes_with_warm_up(
    plateau: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    assert run_training(plateau) == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text(encoding="utf-8")
    expected = {1: 2e-3, 2: 4e-3, 3: 6e-3, 4: 4e-3, 5: 4e-3, 6: 2e-3, 7: 2e-3, 8: 1e-3}
    assert rates(log) == pytest.approx(expected, rel=1e-2)
    assert "[iter 3] learning rate of net_g reduced from 0.006 to 0.003: no improvement in val/psnr" in log
    assert "after more than 1 validation (1 iterations) without improvement in val/psnr" in log


def test_by_default_it_follows_the_validation_loss(plateau: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    plateau["train"]["scheduler"] = {name: value for name, value in PLATEAU.items() if name != "mode"}
    assert run_training(plateau) == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text(encoding="utf-8")
    assert "[iter 3] learning rate of net_g reduced from 0.006 to 0.003: no improvement in val/loss" in log


@pytest.mark.parametrize("at", [2, 3, 4, 7])
def test_a_resume_goes_on_counting(plateau: dict[str, Any], run_training: Run, tmp_path: Path, at: int) -> None:
    assert run_training(plateau | {"name": "straight"}) == 0
    for total_iter in (at, 8):
        plateau["train"]["total_iter"] = total_iter
        assert run_training(plateau | {"name": "parts"}, "--auto_resume") == 0
    straight, parts = (tmp_path / "experiments" / name for name in ("straight", "parts"))
    one, two = (load_file(folder / "resume_models" / "net_g_8.safetensors") for folder in (straight, parts))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    logs = [(folder / "train.log").read_text(encoding="utf-8") for folder in (straight, parts)]
    assert rates(logs[0]) == rates(logs[1])


def test_what_validations_made_of_the_rate_counts_where_it_changes(
    plateau: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    plateau["train"] |= {"total_iter": 4, "warmup_iter": -1}
    assert run_training(plateau) == 0
    file = tmp_path / "experiments" / "tiny" / "train.log"
    for total_iter, scheduler, line in (
        (5, PLATEAU | {"factor": 0.25}, "iteration 5: 0.004 by the checkpoint's options, 0.002 by the current ones"),
        (6, {"type": "StepLR", "step_size": 100}, "iteration 6: 0.0005 by the checkpoint's options, 0.008 by the"),
    ):
        before = file.read_text(encoding="utf-8")
        plateau["train"] |= {"scheduler": scheduler, "total_iter": total_iter}
        assert run_training(plateau, "--auto_resume") == 0
        assert f"learning rate of net_g at {line}" in file.read_text(encoding="utf-8").removeprefix(before)


def test_a_schedule_of_two_networks_is_one_mistake(
    plateau: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    plateau["network_d"] = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}
    plateau["train"]["losses"].append({"type": "ganloss", "loss_weight": 0.1})
    plateau["train"] |= {"optim_d": {"type": "AdamW", "lr": 1e-3}, "scheduler": PLATEAU | {"monitor": "val/psnrr"}}
    assert run_training(plateau) == 2
    assert capfd.readouterr().err.count("train.scheduler.monitor") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"monitor": "val/psnrr"}, "monitor: found val/psnrr, which no validation computes; accepted: val/psnr"),
        ({"mode": "min", "monitor": "val/ssim"}, "mode: found min, but val/ssim is better when it is higher"),
        ({"factor": 1.0}, "factor: found 1.0; accepted: less than 1"),
        ({"patience": -1}, "patience: found -1; accepted: at least 0"),
    ],
)
def test_what_it_cannot_follow_is_refused(
    plateau: dict[str, Any],
    run_training: Run,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    plateau["train"]["scheduler"] = PLATEAU | changes
    assert run_training(plateau) == 2
    assert f"train.scheduler.{message}" in capfd.readouterr().err
    assert not (tmp_path / "experiments" / "tiny").exists()


def test_without_validation_there_is_nothing_to_follow(
    plateau: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    plateau["val"]["val_enabled"] = False
    assert run_training(plateau) == 2
    assert "train.scheduler.monitor: found val/psnr, which no validation computes" in capfd.readouterr().err
