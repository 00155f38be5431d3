"""Automations of two real processes over gloo: one decides, both do it, and nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs.automated_runs import GAN, NET_D, TWO_LOSSES, decisions, everything, log_of, weights
from traiNNer.training_automations.observations import merged

Run = Callable[..., int]
ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, os, sys
from pathlib import Path
from traiNNer import controls
from traiNNer.cli import ending_with_message, parse_train
from traiNNer.run import train
from traiNNer.trainer import Trainer
from traiNNer.training_automations.adaptivegradientclipping_automation import AdaptiveGradientClipping
from traiNNer.training_automations.base import SetLossWeight

rank, folder, faults = int(os.environ["RANK"]), Path(sys.argv[1]), sys.argv[2] == "faults"
usual_finish, usual_apply, usual_decide = Trainer._finish, controls.RunControls.apply, AdaptiveGradientClipping.decide

def finish(self, *arguments):
    usual_finish(self, *arguments)
    found = {}
    for name, player in self.model.players.items():
        found[name] = [player.max_norm, player.learning_rate.factors, player.learning_rate.current]
    found |= {"mse": self.model.loss_factor("mseloss"), "iteration": self.iteration}
    (folder / f"rank{rank}.json").write_text(json.dumps(found))

def apply(self, decision):
    if faults and rank == 1 and isinstance(decision, SetLossWeight) and decision.reason != "fallback":
        raise RuntimeError("broken on rank 1 alone")
    return usual_apply(self, decision)

def decide(self, iteration):
    if faults and iteration >= 40:
        raise RuntimeError("broken on rank 0 alone")
    return usual_decide(self, iteration)

Trainer._finish, controls.RunControls.apply, AdaptiveGradientClipping.decide = finish, apply, decide
sys.exit(ending_with_message(lambda: train(parse_train(sys.argv[3:]))))
"""


@pytest.fixture
def two_processes(write_options: Callable[..., Path], tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Runs train.py's program by torchrun with two processes; what each of them had in the end."""

    def run(values: dict[str, Any], *arguments: str, faults: bool = False) -> list[dict[str, Any]]:
        (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        own = [str(tmp_path / "program.py"), str(tmp_path), "faults" if faults else "none"]
        command = [*torchrun, *own, "-opt", str(write_options(values)), "--launcher", "pytorch", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert result.returncode == 0, result.stderr
        return [json.loads((tmp_path / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]

    return run


@pytest.fixture
def automated(options: dict[str, Any]) -> dict[str, Any]:
    options["train"] |= {
        "total_iter": 60,
        "grad_clip": True,
        "scheduler": None,
        "optim_g": {"type": "SGD", "lr": 0.1},
        "losses": TWO_LOSSES,
        "training_automations": everything(),
    }
    options["val"] |= {"val_freq": 15, "metrics": {"psnr": {"type": "psnr"}}}
    options["logger"] |= {"save_checkpoint_freq": 23, "print_freq": 7}
    return options


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_decide_as_one(
    automated: dict[str, Any],
    run_training: Run,
    two_processes: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """Without the losses' shares, which are means over processes."""
    sections = automated["train"]["training_automations"]
    del sections["dynamic_loss_scheduling"]
    sections["early_stopping"] = {"patience": 30, "min_improvement": 50.0, "warmup_iterations": 0}  # stops at 45
    automated["datasets"]["train"]["batch_size_per_gpu"] = 4
    assert run_training(automated, "--name", "one") == 0
    automated["datasets"]["train"]["batch_size_per_gpu"] = 2
    first, second = two_processes(automated, "--name", "two")
    assert first == second
    assert first["iteration"] == 45
    one, two = (decisions(tmp_path / "experiments" / name) for name in ("one", "two"))
    assert len({line["automation"] for line in one}) == 3
    for here, there in zip(one, two, strict=True):
        assert [here[key] for key in ("iteration", "what", "reason")] == [
            there[key] for key in ("iteration", "what", "reason")
        ]
        assert here["to"] == pytest.approx(there["to"], rel=1e-3)
    mine, theirs = (weights(tmp_path / "experiments" / name, 45) for name in ("one", "two"))
    assert mine.keys() == theirs.keys()
    distance = sum((value.float() - theirs[key].float()).square().sum() for key, value in mine.items())
    assert distance < 1e-6 * sum(value.float().square().sum() for value in mine.values())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_fails_in_one_process_is_off_in_both(
    automated: dict[str, Any], two_processes: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    automated["datasets"]["train"]["batch_size_per_gpu"] = 1
    automated["network_d"] = NET_D
    automated["train"] |= {"optim_d": {"type": "AdamW", "lr": 1e-3}, "losses": [*TWO_LOSSES, GAN]}
    automated["train"]["training_automations"]["AdaptiveGradientClipping"]["fallback"] = {"threshold": 0.7}
    first, second = two_processes(automated, faults=True)
    assert first == second
    assert first["iteration"] == 60
    assert (first["net_g"][0], first["net_d"][0], first["mse"]) == (0.7, 0.7, 1.0)
    folder = tmp_path / "experiments" / "tiny"
    log = log_of(folder)
    assert log.count("RuntimeError: broken on rank 0 alone\n") == log.count("Traceback") == 1
    assert log.count("is off for the rest of the run, its fallback takes effect: RuntimeError in apply: broken on") == 1
    assert "Automation DynamicLossScheduling: loss weight of mseloss adjusted from" in log
    assert {"clip_threshold/net_d", "loss_factor/mseloss"} <= {
        line["what"] for line in decisions(folder) if line["reason"] == "fallback"
    }
    assert first["net_g"][1]["learning_rate_factor"] < 1  # the others go on


def test_steps_that_a_new_process_lacks() -> None:
    """Two processes go on from the checkpoint of one that had read some steps already."""
    step = {
        "iteration": 1,
        "losses": {"l1": 1.0},
        "gradients": {},
        "weights": {"l1": 1.0},
        "scheduled_weights": {"l1": 1.0},
        "scheduled_rate": 0.1,
        "norms": {},
        "applied": True,
        "samples": 1,
        "seconds": 0.5,
    }
    later = [{**step, "iteration": 2, "losses": {"l1": value}} for value in (2.0, 4.0)]
    merged_steps = merged([[step, later[0]], [later[1]]])
    assert [(each.iteration, each.losses["l1"]) for each in merged_steps] == [(1, 1.0), (2, 3.0)]
