"""With automations too, N iterations straight are N/2, a resume and N/2: decision for decision, bit for bit."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs.automated_runs import (
    FALLING,
    TWO_LOSSES,
    decisions,
    everything,
    log_of,
    same,
    state_of,
    three_phases,
    weights,
)
from traiNNer.training_automations.base import LossFacts, RunFacts
from traiNNer.training_automations.dynamiclossscheduling_automation import DynamicLossScheduling

Run = Callable[..., int]
ROOT = Path(__file__).resolve().parents[2]


def assert_equal(one: Path, two: Path, *, without: tuple[str, ...] = (), iteration: int = 60) -> None:
    assert decisions(one) == decisions(two)
    assert same(weights(one, iteration), weights(two, iteration))
    first, second = state_of(one, iteration), state_of(two, iteration)
    assert first.keys() == second.keys()
    assert not [name for name in first if name not in without and not same(first[name], second[name])]


def test_all_of_them_in_three_phases(options: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    """GAN with R1 and R2, EMA, accumulation, a schedule-free and an AdamW component, dropout, four automations."""
    three_phases(options)
    straight, resumed = (tmp_path / "experiments" / name for name in ("straight", "resumed"))
    options["logger"]["save_checkpoint_freq"] = 23
    assert run_training(options, "--name", "straight") == 0
    assert len({line["automation"] for line in decisions(straight)}) == 3
    assert len({line["what"] for line in decisions(straight)}) >= 4
    assert "failed" not in log_of(straight)
    shutil.copytree(straight, resumed)
    options["logger"] |= {"save_checkpoint_freq": 17, "print_freq": 4}
    assert run_training(options, "--name", "resumed", "--resume", "23") == 0
    assert_equal(straight, resumed, without=("monitor",))  # sums since the last log line


@pytest.fixture
def small(options: dict[str, Any]) -> dict[str, Any]:
    """60 iterations of three losses on small crops."""
    options["datasets"]["train"] |= {"batch_size_per_gpu": 1, "gt_size": 16}
    options["train"] |= {
        "total_iter": 60,
        "grad_clip": True,
        "scheduler": None,
        "losses": [*TWO_LOSSES, {"type": "ssimloss", "loss_weight": 0.1}],
    }
    options["val"] |= {"val_freq": 6, "metrics": {"psnr": {"type": "psnr"}}}
    options["logger"] |= {"print_freq": 100}
    return options


def test_validations_that_nothing_watches_may_be_at_other_times(
    small: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    sections = everything()
    del sections["early_stopping"]
    sections["IntelligentLearningRateScheduler"]["monitor_validation"] = False
    small["train"]["training_automations"] = sections
    straight, resumed = (tmp_path / "experiments" / name for name in ("straight", "resumed"))
    small["logger"]["save_checkpoint_freq"] = 38
    assert run_training(small, "--name", "straight") == 0
    shutil.copytree(straight, resumed)
    small["val"]["val_freq"], small["logger"]["save_checkpoint_freq"] = 7, 13
    assert run_training(small, "--name", "resumed", "--resume", "38") == 0
    assert decisions(straight)[-1]["iteration"] == 60
    assert_equal(straight, resumed, without=("best",))


ALONE = {
    "clipping": ({"AdaptiveGradientClipping": everything()["AdaptiveGradientClipping"]}, 13),
    "rate": ({"IntelligentLearningRateScheduler": everything()["IntelligentLearningRateScheduler"]}, 42),
    "enough": ({"AdaptiveGradientClipping": {**FALLING, "max_adjustments": 2}}, 37),
    "a decay": ({"IntelligentLearningRateScheduler": {"plateau_patience": 10, "improvement_threshold": 0.9}}, 44),
    "stopping": ({"early_stopping": {"patience": 30, "min_improvement": 50.0, "warmup_iterations": 5}}, 20),
    "losses": ({"dynamic_loss_scheduling": {"adjustment_frequency": 7, "auto_calibrate": False}}, 17),
    "calibration": ({"dynamic_loss_scheduling": {"adjustment_frequency": 10}}, 23),
}
"""Each automation alone, and the iteration to resume from."""


@pytest.mark.parametrize("name", ALONE)
def test_each_alone(small: dict[str, Any], run_training: Run, tmp_path: Path, name: str) -> None:
    section, at = ALONE[name]
    small["train"]["training_automations"] = section
    small["logger"]["save_checkpoint_freq"] = at
    straight, resumed = (tmp_path / "experiments" / name for name in ("straight", "resumed"))
    assert run_training(small, "--name", "straight") == 0
    shutil.copytree(straight, resumed)
    small["logger"]["save_checkpoint_freq"] = 11
    assert run_training(small, "--name", "resumed", "--resume", str(at)) == 0
    assert decisions(straight)
    last = 36 if name == "stopping" else 60
    assert_equal(straight, resumed, iteration=last)


def test_factors_of_losses_survive_to_the_last_digit() -> None:
    losses = {"l1": LossFacts(kind="pixel"), "mse": LossFacts(kind="pixel")}
    automation = DynamicLossScheduling(max_factor=4.0)
    automation.start(RunFacts(total_iter=100, losses=losses))
    state = automation.state_dict()
    for step in range(-200, 201):
        state["losses"]["mse"]["factor"] = factor = 1.1 ** (step / 10)
        automation.load_state_dict(copy.deepcopy(state))
        kept = automation.state_dict()["losses"]["mse"]["factor"]
        assert kept == factor if 0.25 <= factor <= 4 else kept == pytest.approx(min(max(factor, 0.25), 4))


def test_an_automation_that_the_checkpoint_lacks_begins_anew(
    small: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    small["train"] |= {"total_iter": 13, "training_automations": {"early_stopping": {}}}
    assert run_training(small) == 0
    small["train"] |= {"total_iter": 60, "training_automations": everything()}
    assert run_training(small, "--auto_resume") == 0
    folder = tmp_path / "experiments" / "tiny"
    assert {line["automation"] for line in decisions(folder)} == {
        "AdaptiveGradientClipping",
        "IntelligentLearningRateScheduler",
        "DynamicLossScheduling",
    }
    assert "Traceback" not in log_of(folder)
    small["train"] |= {"total_iter": 62, "training_automations": None}
    assert run_training(small, "--auto_resume") == 0
    assert "in the checkpoint, but not in this run: automations, observations" in log_of(folder)


KILLED = """
import os, signal, sys
from traiNNer.training_automations import journal
from traiNNer import trainer

usual = journal.Journal.write
lines = []

def write(self, *arguments):
    usual(self, *arguments)
    lines.append(arguments)
    if len(lines) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

journal.Journal.write = write
from traiNNer.cli import ending_with_message, parse_train
from traiNNer.run import train
sys.exit(ending_with_message(lambda: train(parse_train(sys.argv[2:]))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 7])
def test_a_kill_between_a_decision_and_its_checkpoint(
    options: dict[str, Any],
    run_training: Run,
    write_options: Callable[..., Path],
    tmp_path: Path,
    lines: int,
) -> None:
    three_phases(options)
    straight, killed = (tmp_path / "experiments" / name for name in ("straight", "killed"))
    options["logger"]["save_checkpoint_freq"] = 9
    assert run_training(options, "--name", "straight") == 0
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    path = write_options(options)
    command = [sys.executable, str(tmp_path / "killed.py"), str(lines), "-opt", str(path), "--name", "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, timeout=100, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    left = decisions(killed)
    newest = max(int(each.stem) for each in (killed / "training_states").glob("*.state"))
    assert len(left) == lines
    assert left[-1]["iteration"] > newest  # what was decided is in no checkpoint
    assert run_training(options, "--name", "killed", "--auto_resume") == 0
    assert f"resumed from iteration {newest} of" in log_of(killed)
    assert_equal(straight, killed)
