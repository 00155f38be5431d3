"""A resumed run equals a straight one, bit for bit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Run = Callable[..., int]


def weights(folder: Path, iteration: int) -> dict[str, torch.Tensor]:
    """All network weights that a run saved at an iteration."""
    files = sorted((folder / "models").glob(f"*_{iteration}.safetensors")) + sorted(
        (folder / "resume_models").glob(f"*_{iteration}.safetensors")
    )
    assert files
    return {f"{file.stem}/{key}": value for file in files for key, value in load_file(file).items()}


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [key for key, value in first.items() if not torch.equal(value, second[key])]
    assert not different


def logged(log: str) -> dict[int, str]:
    """Iteration to what its log line says, without speeds."""
    lines = re.findall(r"\[iter (\d+)/\d+, epoch \d+\] .*?left \S+  (.*)", log)
    return {int(iteration): text for iteration, text in lines}


def objects(folder: Path, iteration: int) -> Any:
    state = torch.load(folder / "training_states" / f"{iteration}.state", weights_only=True)
    return state["objects"]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.mark.parametrize(("k", "workers_before", "workers_after"), [(1, 0, 0), (3, 0, 2), (5, 2, 1), (7, 1, 0)])
def test_straight_equals_resumed(
    options: dict[str, Any], run_training: Run, tmp_path: Path, k: int, workers_before: int, workers_after: int
) -> None:
    options["logger"]["save_checkpoint_freq"] = k  # 8 images in batches of 3: every k is in the middle of an epoch
    options["datasets"]["train"]["num_worker_per_gpu"] = workers_before
    assert run_training(options, "--name", "straight") == 0
    one, two = tmp_path / "experiments" / "straight", tmp_path / "experiments" / "resumed"
    shutil.copytree(one, two)
    options["datasets"]["train"]["num_worker_per_gpu"] = workers_after
    assert run_training(options, "--name", "resumed", "--resume", str(k)) == 0
    assert_same_weights(weights(one, 8), weights(two, 8))
    first, second = objects(one, 8), objects(two, 8)
    for name in first:
        assert name == "run" or same(first[name], second[name]), name
    text = (two / "train.log").read_text(encoding="utf-8")
    assert f"resumed from iteration {k} of" in text
    again = logged(text.split("resumed from iteration")[1])
    assert again == {
        iteration: line for iteration, line in logged(text.split("resumed from iteration")[0]).items() if iteration > k
    }


def test_a_finished_run_that_is_prolonged_logs_as_a_straight_one(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    options["logger"] |= {"print_freq": 4}
    options["train"]["scheduler"] = None  # the cosine's length is total_iter
    experiments = tmp_path / "experiments"
    assert run_training(options, "--name", "straight") == 0
    options["train"]["total_iter"] = 6
    assert run_training(options, "--name", "prolonged") == 0
    options["train"]["total_iter"] = 8
    assert run_training(options, "--name", "prolonged", "--auto_resume") == 0
    straight, prolonged = (
        logged((experiments / name / "train.log").read_text(encoding="utf-8")) for name in ("straight", "prolonged")
    )
    assert sorted(straight) == [4, 8]
    assert sorted(prolonged) == [4, 6, 8]
    assert {iteration: prolonged[iteration] for iteration in straight} == straight


def test_validating_and_saving_often_changes_nothing(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    assert run_training(options, "--name", "rarely") == 0
    options["val"]["val_freq"] = options["logger"]["save_checkpoint_freq"] = options["logger"]["print_freq"] = 1
    options["val"]["save_img"] = True
    assert run_training(options, "--name", "often") == 0
    experiments = tmp_path / "experiments"
    assert_same_weights(weights(experiments / "rarely", 8), weights(experiments / "often", 8))


def test_an_edited_rate_and_weight_decay_take_effect(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    options["train"]["ema_decay"] = 0.0
    assert run_training(options) == 0
    folder = tmp_path / "experiments" / "tiny"
    before = load_file(folder / "models" / "net_g_4.safetensors")
    options["train"]["optim_g"] |= {"lr": 1e-12, "weight_decay": 0.5, "betas": [0.5, 0.6]}
    assert run_training(options, "--resume", "4") == 0
    after = load_file(folder / "models" / "net_g_8.safetensors")
    learned = [key for key in before if "tracked" not in key]
    assert all(torch.allclose(before[key], after[key], atol=1e-9) for key in learned)
    group = objects(folder, 8)["optimizer/net_g"]["state"]["param_groups"][0]
    assert (group["initial_lr"], group["weight_decay"], list(group["betas"])) == (1e-12, 0.5, [0.5, 0.6])
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert "changed option: train.optim_g.lr: 0.004 by the checkpoint's options, 1e-12 by the current ones" in log


def test_an_optimizer_of_another_type_starts_fresh(options: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    assert run_training(options) == 0
    options["train"]["optim_g"] = {"type": "SGD", "lr": 1e-3, "momentum": 0.9}
    assert run_training(options, "--resume", "4") == 0
    folder = tmp_path / "experiments" / "tiny"
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert log.count("optimizer/net_g starts fresh: it was saved by AdamW and is now SGD") == 1
    saved = objects(folder, 8)["optimizer/net_g"]
    assert saved["type"] == "SGD"
    assert saved["state"]["param_groups"][0]["initial_lr"] == 1e-3
    assert set(saved["state"]["state"][0]) == {"momentum_buffer"}


def test_an_optimizer_that_does_not_fit_is_found_before_anything_is_written(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_training(options) == 0
    path = tmp_path / "experiments" / "tiny" / "training_states" / "4.state"
    state = torch.load(path, weights_only=True)
    state["objects"]["optimizer/net_g"]["state"]["param_groups"][0]["params"].pop()
    torch.save(state, path)
    log = path.parent.parent / "train.log"
    before = log.read_bytes()
    capfd.readouterr()
    assert run_training(options, "--resume", "4") == 2
    message = capfd.readouterr().err.strip()
    assert len(message.splitlines()) == 1, message
    assert re.search(r"options\.yml:\d+: train\.optim_g", message)
    assert "parameter groups" in message
    assert log.read_bytes() == before
    assert (path.parent / "8.state").is_file()  # not set aside either


def test_going_back_sets_newer_checkpoints_aside(options: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    options["logger"]["save_checkpoint_freq"] = 2
    assert run_training(options) == 0
    options["train"]["total_iter"] = 5
    assert run_training(options, "--resume", "4") == 0
    options["train"]["total_iter"] = 6
    assert run_training(options, "--auto_resume") == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text(encoding="utf-8")
    assert "set aside: 6.state.aside, 8.state.aside" in log
    assert "resumed from iteration 5 of" in log


def test_a_state_of_another_run_does_not_overwrite_this_one(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    experiments = tmp_path / "experiments"
    assert run_training(options, "--name", "a") == 0
    assert run_training(options, "--name", "b") == 0
    options["path"]["resume_state"] = str(experiments / "a" / "training_states" / "4.state")
    assert run_training(options, "--name", "b") == 0
    assert len(list(experiments.glob("b_archived_*"))) == 1
    assert "resumed from iteration 4 of" in (experiments / "b" / "train.log").read_text(encoding="utf-8")
    assert run_training(options, "--name", "b", "--auto_resume") == 0  # its own newest, not the state that is named
    assert "resumed from iteration 8 of" in (experiments / "b" / "train.log").read_text(encoding="utf-8")


def test_networks_that_a_resume_leaves_alone(options: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    assert run_training(options) == 0
    options["path"]["ignore_resume_networks"] = ["net_g"]
    assert run_training(options, "--resume", "4") == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text(encoding="utf-8")
    assert "net_g: not loaded, it is in path.ignore_resume_networks" in log


def test_seed_0_is_a_seed(options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_training(options, "--manual_seed", "0", "--check") == 0
    assert re.search(r"seed +0\n", capfd.readouterr().err)
