"""Learning rates over a resume: what the file says now takes effect, and the log says what changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., int]


@pytest.fixture
def parts(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> Callable[..., tuple[dict[int, float], dict[int, float], str]]:
    """Trains 4 of 8 iterations, changes the section `train`, and goes on; the rates of both parts, and the log."""
    options["val"]["val_enabled"] = False
    options["train"] |= {"scheduler": {"type": "MultiStepLR", "milestones": [2, 6], "gamma": 0.5}, "warmup_iter": -1}
    options["train"]["optim_g"] = {"type": "AdamW", "lr": 8e-3}
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 4}

    def run(
        changes: dict[str, Any], *arguments: str, total_iter: int = 8
    ) -> tuple[dict[int, float], dict[int, float], str]:
        options["train"]["total_iter"] = 4
        assert run_training(options) == 0
        log = tmp_path / "experiments" / "tiny" / "train.log"
        before = log.read_text(encoding="utf-8")
        options["train"] |= {"total_iter": total_iter, **changes}
        assert run_training(options, "--auto_resume", *arguments) == 0
        after = log.read_text(encoding="utf-8").removeprefix(before)
        return rates(before), rates(after), after

    return run


def rates(log: str, network: str = "net_g") -> dict[int, float]:
    found = re.findall(rf"\[iter (\d+)/.* lr {network} (\S+)", log)
    return {int(iteration): float(rate) for iteration, rate in found}


FIRST = {1: 8e-3, 2: 8e-3, 3: 4e-3, 4: 4e-3}
STEP = {"type": "MultiStepLR", "milestones": [2, 6], "gamma": 0.5}

EDITS: dict[str, tuple[dict[str, Any], dict[int, float], str]] = {
    "nothing": ({}, {5: 4e-3, 6: 4e-3, 7: 2e-3, 8: 2e-3}, ""),
    "lr": (
        {"optim_g": {"type": "AdamW", "lr": 2e-3}},
        {5: 1e-3, 6: 1e-3, 7: 5e-4, 8: 5e-4},
        "learning rate of net_g at iteration 5: 0.004 by the checkpoint's options, 0.001 by the current ones",
    ),
    "milestones": (
        {"scheduler": STEP | {"milestones": [5]}},
        {5: 8e-3, 6: 4e-3, 7: 4e-3, 8: 4e-3},
        "learning rate of net_g at iteration 5: 0.004 by the checkpoint's options, 0.008 by the current ones",
    ),
    "gamma": (
        {"scheduler": STEP | {"gamma": 0.1}},
        {5: 8e-4, 6: 8e-4, 7: 8e-5, 8: 8e-5},
        "learning rate of net_g at iteration 5: 0.004 by the checkpoint's options, 0.0008 by the current ones",
    ),
    "type": (
        {"scheduler": {"type": "CosineAnnealingLR", "eta_min_factor": 0.5}},
        {5: 6e-3, 6: 5.23e-3, 7: 4.59e-3, 8: 4.15e-3},
        "learning rate of net_g at iteration 5: 0.004 by the checkpoint's options, 0.006 by the current ones",
    ),
    "one network's own": (
        {"scheduler_g": STEP | {"gamma": 1.0}},
        dict.fromkeys(range(5, 9), 8e-3),
        "0.008 by the current",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_takes_effect_at_the_resumed_iteration(parts: Callable[..., Any], edit: str) -> None:
    changes, expected, line = EDITS[edit]
    before, after, log = parts(changes)
    assert before == pytest.approx(FIRST, rel=1e-2)
    assert after == pytest.approx(expected, rel=1e-2)
    assert (line in log) if line else ("learning rate of net_g at" not in log)
    assert ("changed option: train.optim_g.lr" in log) is (edit == "lr")


def test_total_iter_stretches_a_schedule_that_spans_the_run(parts: Callable[..., Any], options: dict[str, Any]) -> None:
    options["train"]["scheduler"] = {"type": "CosineAnnealingLR", "eta_min_factor": 0.0}
    _, after, log = parts({})
    assert after[5] == pytest.approx(4e-3, rel=1e-2)
    line = "learning rate of net_g at iteration 5: 0 by the checkpoint's options, 0.004 by the current ones"
    assert line in log
    assert "changed option: train.total_iter: 4 by the checkpoint's options, 8 by the current ones" in log


def test_preserved_rates_stay_also_over_a_second_resume(
    parts: Callable[..., Any], options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    _, after, log = parts({"optim_g": {"type": "AdamW", "lr": 1e-5}, "scheduler": None}, "--preserve_lr")
    assert after == pytest.approx(EDITS["nothing"][1], rel=1e-2)
    assert "--preserve_lr: the learning rates and schedules of the checkpoint are kept" in log
    options["train"]["total_iter"] = 10
    assert run_training(options, "--auto_resume", "--preserve_lr") == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text(encoding="utf-8")
    assert rates(log)[10] == pytest.approx(2e-3, rel=1e-2)
    options["train"]["total_iter"] = 12
    assert run_training(options, "--auto_resume") == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text(encoding="utf-8")
    assert rates(log)[12] == pytest.approx(1e-5, rel=1e-2)
    assert "iteration 11: 0.002 by the checkpoint's options, 1e-05 by the current ones" in log


@pytest.mark.parametrize("schedule", ["CosineAnnealingLR", "MultiStepLR"])
def test_a_preserved_schedule_of_another_length_is_told(
    parts: Callable[..., Any], options: dict[str, Any], schedule: str
) -> None:
    spans = schedule == "CosineAnnealingLR"
    options["train"]["scheduler"] = {"type": schedule, "eta_min_factor": 0.0} if spans else STEP
    _, after, log = parts({}, "--preserve_lr")
    line = "--preserve_lr: the schedule of net_g is that of a run of 4, not 8 iterations"
    assert (line in log) is spans
    assert (after[8] > after[5]) is spans  # the cosine rises again


def test_a_network_added_later_starts_fresh(parts: Callable[..., Any], options: dict[str, Any], tmp_path: Path) -> None:
    options["network_d"] = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}
    gan = [{"type": "l1loss", "loss_weight": 1.0}, {"type": "ganloss", "loss_weight": 0.1}]
    changes = {"losses": gan, "optim_d": {"type": "AdamW", "lr": 3e-3}, "scheduler_d": {"type": "CosineAnnealingLR"}}
    _, after, log = parts(changes)
    assert after == pytest.approx(EDITS["nothing"][1], rel=1e-2)
    assert "not in the checkpoint, so they start fresh: net_d, optimizer/net_d" in log
    assert rates(log, "net_d")[5] == pytest.approx(3e-3 * (0.1 + 0.9 / 2), rel=1e-2)


def test_an_optimizer_without_its_network_is_not_spoken_of(parts: Callable[..., Any], options: dict[str, Any]) -> None:
    options["train"]["optim_d"] = {"type": "AdamW", "lr": 1e-3}
    _, _, log = parts({"scheduler": STEP | {"gamma": 0.1}})
    assert "learning rate of net_g at iteration 5" in log
    assert "learning rate of net_d" not in log


@pytest.mark.parametrize("name", ["RMSprop", "SGD", "AdamW"])
def test_momentum_may_be_cycled_from_a_resume_on(parts: Callable[..., Any], name: str, options: dict[str, Any]) -> None:
    optimizer = {"type": name, "lr": 1e-3}
    options["train"]["optim_g"] = optimizer
    cycle = {"type": "OneCycleLR", "cycle_momentum": True}
    _, after, _ = parts({"optim_g": optimizer, "scheduler": cycle})
    assert after.keys() == {5, 6, 7, 8}


def test_the_momentum_of_a_schedule_free_optimizer_is_not_cycled(
    options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    cycle = {"type": "OneCycleLR", "cycle_momentum": True}
    options["train"] |= {"optim_g": {"type": "AdamWScheduleFree"}, "scheduler": cycle}
    assert run_training(options, "--check") == 2
    assert "train.scheduler.cycle_momentum: found true, but a schedule-free" in capfd.readouterr().err
    cycle["cycle_momentum"] = False
    assert run_training(options, "--check") == 0


def test_a_file_of_optimizers_replaces_the_networks_it_names(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    file = tmp_path / "optim.json"
    content = {
        "optimizers": {"generator": {"type": "SGD", "lr": 0.5}},
        "schedulers": {"g": {"type": "MultiStepLR", "milestones": [1]}},
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    options["logger"]["print_freq"] = 1
    options["train"] |= {"warmup_iter": -1, "total_iter": 2}
    options["val"]["val_enabled"] = False
    assert run_training(options, "--optim_sched_config", str(file)) == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text(encoding="utf-8")
    assert rates(log) == pytest.approx({1: 0.5, 2: 0.05})
    assert "optimizer net_g      SGD, lr 0.5" in re.sub(r" +SGD", "      SGD", log)
