"""Optimizers in real runs: what schedule-free ones release and resume, and the rate that Prodigy makes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from traiNNer.utils.errors import RunError
from traiNNer.validation import Validator

Run = Callable[..., int]
SCHEDULE_FREE = ({"type": "AdamWScheduleFree", "lr": 4e-3}, {"type": "AdanScheduleFree", "lr": 4e-3})


def files(folder: Path, iteration: int | str) -> dict[str, torch.Tensor]:
    found = sorted(folder.glob(f"*models/*_{iteration}.safetensors"))
    assert found
    return {f"{path.parent.name}/{path.stem}/{key}": value for path in found for key, value in load_file(path).items()}


def group(folder: Path, iteration: int) -> dict[str, Any]:
    state = torch.load(folder / "training_states" / f"{iteration}.state", weights_only=True)
    return state["objects"]["optimizer/net_g"]["state"]["param_groups"][0]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [key for key, value in first.items() if not torch.equal(value, second[key])] == []


@pytest.mark.parametrize("optimizer", SCHEDULE_FREE, ids=lambda optimizer: optimizer["type"])
def test_schedule_free_runs_are_exact(
    options: dict[str, Any],
    run_training: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: dict[str, Any],
) -> None:
    """Validating and saving at every iteration changes nothing, nor does a resume; the best is what was validated."""
    experiments = tmp_path / "experiments"
    validated: list[dict[str, torch.Tensor]] = []
    real = Validator.run

    def run(self: Validator, net: torch.nn.Module, iteration: int) -> Any:
        validated.append({key: value.clone() for key, value in net.state_dict().items()})
        return real(self, net, iteration)

    monkeypatch.setattr(Validator, "run", run)
    options["train"] |= {"optim_g": optimizer, "ema_decay": 0.0, "scheduler": None}
    options["val"]["val_freq"] = options["logger"]["save_checkpoint_freq"] = 8
    assert run_training(options, "--name", "rarely") == 0
    options["val"]["val_freq"] = options["logger"]["save_checkpoint_freq"] = options["logger"]["print_freq"] = 1
    assert run_training(options, "--name", "often") == 0
    shutil.copytree(experiments / "often", experiments / "resumed")
    assert run_training(options, "--name", "resumed", "--resume", "3") == 0
    for name in ("often", "resumed"):
        assert_same(files(experiments / name, 8), files(experiments / "rarely", 8))
        assert group(experiments / name, 8) == group(experiments / "rarely", 8)
    folder = experiments / "often"
    released, trained = (load_file(folder / part / "net_g_8.safetensors") for part in ("models", "resume_models"))
    learned = [key for key in released if "tracked" not in key]
    assert not all(torch.equal(released[key], trained[key]) for key in learned)
    assert_same(validated[-1], released)
    assert_same(load_file(folder / "models" / "net_g_latest.safetensors"), released)
    best = re.findall(r"best val/psnr: ([\d.]+) at iteration (\d)", (folder / "train.log").read_text(encoding="utf-8"))[
        -1
    ]
    assert_same(
        load_file(folder / "models" / "net_g_best_psnr.safetensors"),
        load_file(folder / "models" / f"net_g_{best[1]}.safetensors"),
    )


def test_a_validation_that_fails_leaves_the_training_weights(
    options: dict[str, Any], run_training: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options["train"] |= {"optim_g": SCHEDULE_FREE[0], "ema_decay": 0.0}
    assert run_training(options, "--name", "straight") == 0

    def broken(*_: Any) -> None:
        raise RunError("a picture is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "run", broken)
        assert run_training(options, "--name", "broken") == 1  # it saves at iteration 4 before it ends
    experiments = tmp_path / "experiments"
    assert_same(files(experiments / "broken", 4), files(experiments / "straight", 4))
    assert run_training(options, "--name", "broken", "--auto_resume") == 0
    assert_same(files(experiments / "broken", 8), files(experiments / "straight", 8))


def test_the_moving_average_follows_the_training_weights(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    """A decay that is nearly 0 makes the average the last weights themselves."""
    options["train"] |= {"optim_g": SCHEDULE_FREE[0], "ema_decay": 1e-30, "ema_power": 100.0}
    assert run_training(options) == 0
    folder = tmp_path / "experiments" / "tiny"
    ema = load_file(folder / "models" / "net_g_ema_8.safetensors")
    trained = load_file(folder / "resume_models" / "net_g_8.safetensors")
    for key, value in trained.items():
        torch.testing.assert_close(ema[key], value, rtol=1e-6, atol=1e-7)
    released = load_file(folder / "models" / "net_g_8.safetensors")
    assert not all(torch.allclose(ema[key], released[key], atol=1e-6) for key in ema)


def test_prodigy_logs_its_rate_and_resumes_with_it(options: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    options["train"] |= {"optim_g": {"type": "Prodigy", "d0": 1e-4}, "scheduler": None, "warmup_iter": -1}
    options["logger"] |= {"use_tb_logger": True}
    assert run_training(options) == 0
    folder = tmp_path / "experiments" / "tiny"
    learned = group(folder, 4)["d"]
    assert learned > 1e-4
    options["train"]["optim_g"] |= {"lr": 0.5, "weight_decay": 0.1, "betas": [0.8, 0.9]}
    options["train"]["total_iter"] = 5
    assert run_training(options, "--resume", "4") == 0
    resumed = group(folder, 5)
    assert resumed["d"] >= learned
    assert (resumed["lr"], resumed["weight_decay"], list(resumed["betas"])) == (0.5, 0.1, [0.8, 0.9])
    log = (folder / "train.log").read_text(encoding="utf-8")
    rates = re.findall(r"lr_effective/net_g ([\d.e-]+)  lr net_g ([\d.e+-]+)", log)
    assert float(rates[-1][0]) == pytest.approx(0.5 * resumed["d"], rel=1e-3)
    assert [float(nominal) for _, nominal in rates] == [1.0, 1.0, 1.0, 1.0, 0.5]
    assert curve(folder, "lr_effective/net_g")[-1] == pytest.approx(0.5 * resumed["d"])
    assert curve(folder, "lr/net_g")[-1] == 0.5


def curve(folder: Path, name: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    event = max(folder.rglob("events.out.*"), key=lambda path: path.stat().st_mtime_ns)
    events = EventAccumulator(str(event.parent)).Reload()
    return [point.value for point in events.Scalars(name)]
