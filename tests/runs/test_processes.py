"""Two real processes over gloo against one: the same run, to rounding."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from traiNNer.utils.images import read_image

Run = Callable[..., int]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def two_processes(write_options: Callable[..., Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs train.py by torchrun with two processes."""

    def run(values: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command = [*torchrun, str(ROOT / "train.py"), "-opt", str(write_options(values)), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=300, check=False
        )

    return run


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.stem}/{key}": value
        for file in sorted(folder.glob("*/*_8.safetensors"))
        for key, value in load_file(file).items()
    }


def add_a_discriminator(options: dict[str, Any]) -> None:
    options["network_d"] = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}
    options["train"]["optim_d"] = {"type": "SGD", "lr": 0.02}
    gan = {"type": "ganloss", "loss_weight": 0.1, "r1_weight": 0.5, "r2_weight": 0.5, "penalty_interval": 2}
    options["train"]["losses"].append(gan | {"discriminator_start_iter": 2, "start_iter": 4})


@pytest.mark.slow
@pytest.mark.parametrize(("accum_iter", "adversarial"), [(1, False), (2, True)])
def test_two_processes_equal_one(
    options: dict[str, Any],
    run_training: Run,
    two_processes: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    accum_iter: int,
    adversarial: bool,
) -> None:
    options["train"]["optim_g"] = {"type": "SGD", "lr": 0.1}  # Adam turns rounding of tiny gradients into full steps
    if adversarial:
        add_a_discriminator(options)
    section = options["datasets"]["train"]
    section |= {"batch_size_per_gpu": 4, "accum_iter": accum_iter}
    assert run_training(options, "--name", "one") == 0
    section["batch_size_per_gpu"] = 2
    section["num_worker_per_gpu"] = 1
    result = two_processes(options, "--name", "two", "--launcher", "pytorch")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    experiments = tmp_path / "experiments"
    one, two = (final_weights(experiments / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert any(key.startswith("net_d_8/") for key in one) == adversarial
    for key, value in one.items():
        torch.testing.assert_close(two[key].float(), value.float(), rtol=1e-4, atol=1e-6, msg=key)
    values = [
        re.findall(
            r"held out: psnr ([\d.]+) .*?ssim ([\d.]+)", (experiments / name / "train.log").read_text(encoding="utf-8")
        )
        for name in ("one", "two")
    ]
    assert len(values[0]) == 2
    for first, second in zip(*values, strict=True):
        assert [float(number) for number in first] == pytest.approx([float(number) for number in second], abs=2e-3)


@pytest.mark.slow
def test_two_processes_resume_exactly(
    options: dict[str, Any], two_processes: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    options["logger"]["save_checkpoint_freq"] = 3
    assert two_processes(options, "--name", "straight").returncode == 0
    shortened = copy.deepcopy(options)
    shortened["train"]["total_iter"] = 3
    shortened["train"]["scheduler"]["T_max"] = 8
    options["train"]["scheduler"]["T_max"] = 8
    assert two_processes(shortened, "--name", "resumed").returncode == 0
    result = two_processes(options, "--name", "resumed", "--auto_resume")
    assert result.returncode == 0, result.stderr
    assert "resumed from iteration 3" in result.stderr
    one, two = (final_weights(tmp_path / "experiments" / name) for name in ("straight", "resumed"))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.slow
def test_two_processes_write_each_sample_once_and_as_one_does(
    options: dict[str, Any],
    run_training: Run,
    two_processes: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """Three images, two of which would have the same name; the weights stay what they are, and so do the pictures."""
    for place, number in (("x.png", 8), ("x.webp", 9), ("y.png", 8)):
        picture = Image.open(Path(options["datasets"]["val"]["dataroot_lq"]) / f"{number:02}.png")
        (tmp_path / "lq").mkdir(exist_ok=True)
        picture.save(tmp_path / "lq" / place)
    options["datasets"]["val"] = {"type": "SingleImageDataset", "dataroot_lq": str(tmp_path / "lq")}
    options["val"] = {"val_enabled": False, "save_img": False, "samples_per_checkpoint": 2}
    options["train"]["optim_g"]["lr"] = 1e-12
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    assert run_training(options, "--name", "one") == 0
    result = two_processes(options, "--name", "two")
    assert result.returncode == 0, result.stderr
    assert "[iter 8] samples written: 3" in result.stderr
    one, two = (
        {path.name: read_image(path) for path in (tmp_path / "experiments" / name / "samples").iterdir()}
        for name in ("one", "two")
    )
    assert sorted(one) == ["x_000008.webp", "x_2_000008.webp", "y_000008.webp"]
    assert one.keys() == two.keys()
    assert all(np.abs(one[name].astype(int) - two[name]).max() <= 1 for name in one)


@pytest.mark.slow
def test_a_mistake_is_told_once(
    options: dict[str, Any], two_processes: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    options["datasets"]["train"]["dataroot_gt"] = "nowhere"
    result = two_processes(options)
    assert result.returncode != 0
    assert result.stderr.count("nowhere") == 1


def test_dist_true_needs_torchrun(
    options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    options["dist"] = True
    assert run_training(options) == 2
    message = capfd.readouterr().err
    assert "options.yml:" in message
    assert "dist: found true" in message
    assert "torchrun" in message


def test_the_launcher_must_have_started_the_process(
    options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_training(options, "--launcher", "pytorch") == 2
    assert "--launcher: found pytorch, but the environment lacks RANK" in capfd.readouterr().err


@pytest.mark.slow
def test_two_processes_hold_equal_multipliers(
    options: dict[str, Any],
    run_training: Run,
    two_processes: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """Each has other images, and another mean of its own; the moves are those of one process all the same."""
    options["train"] |= {
        "optim_g": {"type": "SGD", "lr": 0.1},
        "losses": [{"type": "l1loss", "loss_weight": 1.0}, {"type": "mseloss", "loss_weight": 5.0}],
        "loss_scheduler": {
            "source_loss": "l1loss",
            "target_loss": "mseloss",
            "patience": 1,
            "min_delta": 0.02,
            "min_observations_before_adapt": 0,
            "warmup_observations": 0,
            "use_ema": False,
            "monitor_metric": "ssim",
            "transition_step": 0.3,
        },
    }
    options["val"] |= {"val_freq": 1}
    section = options["datasets"]["train"]
    section["batch_size_per_gpu"] = 4
    assert run_training(options, "--name", "one") == 0
    section["batch_size_per_gpu"] = 2
    result = two_processes(options, "--name", "two", "--launcher", "pytorch")
    assert result.returncode == 0, result.stderr
    logs = [(tmp_path / "experiments" / name / "train.log").read_text(encoding="utf-8") for name in ("one", "two")]
    one, two = (re.findall(r"\[iter \d+\] loss scheduler: .* progress.*", log) for log in logs)
    assert [line.partition(":")[0] for line in one] == [line.partition(":")[0] for line in two]
    assert one
    weights = final_weights(tmp_path / "experiments" / "two")
    for key, value in final_weights(tmp_path / "experiments" / "one").items():
        torch.testing.assert_close(weights[key].float(), value.float(), rtol=1e-4, atol=1e-6, msg=key)
