"""What a run leaves behind: folders, weights under the names that users know, curves, pictures, log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from traiNNer.archs import build_network
from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS

Run = Callable[..., int]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return tmp_path / "experiments" / "tiny"


def scalars(folder: Path) -> dict[str, list[int]]:
    """TensorBoard's tags, each with the iterations of its points."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [point.step for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_files_and_names(options: dict[str, Any], run_training: Run, experiment: Path) -> None:
    options["val"]["save_img"] = True
    assert run_training(options) == 0
    names = {str(path.relative_to(experiment)).replace("\\", "/") for path in experiment.rglob("*") if path.is_file()}
    for iteration in (4, 8):
        assert {f"models/net_g_{iteration}.safetensors", f"models/net_g_ema_{iteration}.safetensors"} <= names
        assert {f"resume_models/net_g_{iteration}.safetensors", f"training_states/{iteration}.state"} <= names
    assert {"models/net_g_latest.safetensors", "models/net_g_ema_latest.safetensors"} <= names
    assert {"models/net_g_best_psnr.safetensors", "models/net_g_best_ssim.safetensors"} <= names
    assert {"train.log", "options.yml"} <= names
    compared = [name for name in names if name.startswith("visualization/val/") and name.endswith("_8_compare.png")]
    assert len(compared) == 2
    with Image.open(experiment / compared[0]) as picture:
        assert picture.width >= 4 * 64
    best = json.loads((experiment / "models" / "net_g_best_psnr.json").read_text(encoding="utf-8"))
    assert best["iteration"] in (4, 8)


def test_weights_say_what_they_are(options: dict[str, Any], run_training: Run, experiment: Path) -> None:
    assert run_training(options) == 0
    with safe_open(experiment / "models" / "net_g_ema_8.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["type"] == "ParagonSR2"
    assert (metadata["scale"], metadata["iteration"]) == ("2", "8")
    net = build_network({"type": metadata["type"], **json.loads(metadata["parameters"])})
    assert sum(parameter.numel() for parameter in net.parameters()) > 0


def test_curves_have_their_names_and_stay_one_through_a_resume(
    options: dict[str, Any], run_training: Run, experiment: Path
) -> None:
    options["logger"]["use_tb_logger"] = True
    options["datasets"]["val_2"] = options["datasets"]["val"]
    assert run_training(options) == 0
    assert run_training(options, "--resume", "4") == 0
    curves = scalars(experiment / "tb_logger")
    every = [2, 4, 6, 8]
    assert curves["loss/l1loss"] == every
    assert curves["lr/net_g"] == every
    assert {tag: points for tag, points in curves.items() if tag.startswith("val")} == {
        "val/psnr": [4, 8],
        "val/ssim": [4, 8],
        "val/loss": [4, 8],
        "val_2/psnr": [4, 8],
        "val_2/ssim": [4, 8],
        "val_2/loss": [4, 8],
    }


def test_an_earlier_run_is_moved_away_not_overwritten(
    options: dict[str, Any], run_training: Run, experiment: Path
) -> None:
    assert run_training(options) == 0
    first = (experiment / "models" / "net_g_8.safetensors").read_bytes()
    options["manual_seed"] = 2
    assert run_training(options) == 0
    assert run_training(options) == 0
    archived = sorted(experiment.parent.glob("tiny_archived_*"))
    assert len(archived) == 2
    assert (archived[0] / "models" / "net_g_8.safetensors").read_bytes() == first
    assert "starting fresh" in (experiment / "train.log").read_text(encoding="utf-8").splitlines()[0]


def test_a_fresh_run_does_not_write_over_weights_in_a_folder_elsewhere(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options["path"]["models"] = str(tmp_path / "weights")
    options["path"]["resume_models"] = str(tmp_path / "weights")
    assert run_training(options) == 0
    assert (tmp_path / "weights" / "net_g_8.safetensors").is_file()
    capfd.readouterr()
    assert run_training(options, "--name", "another") == 2
    message = capfd.readouterr().err
    assert "path.models: found net_g_" in message
    assert not (tmp_path / "experiments" / "another").exists()
    assert run_training(options, "--auto_resume") == 0


def test_best_values_survive_a_resume(options: dict[str, Any], run_training: Run, experiment: Path) -> None:
    options["train"]["optim_g"]["lr"] = 1e-12  # the values stay what they are: equality is no improvement
    options["train"]["ema_decay"] = 0.0
    assert run_training(options) == 0
    assert run_training(options, "--resume", "4") == 0
    log = (experiment / "train.log").read_text(encoding="utf-8").split("resumed from")[1]
    assert "best val/psnr" in log
    assert all("at iteration 4" in line for line in log.splitlines() if "best val/" in line and "[iter" not in line)


def test_the_log_ends_with_every_image_against_bicubic(
    options: dict[str, Any], run_training: Run, experiment: Path
) -> None:
    assert run_training(options) == 0
    log = (experiment / "train.log").read_text(encoding="utf-8")
    lines = [line for line in log.splitlines() if "  08: psnr" in line or "  09: psnr" in line]
    assert len(lines) == 2
    assert all(line.count("(bicubic ") == 2 for line in lines)


def test_check_writes_nothing(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_training(options, "--check") == 0
    out = capfd.readouterr().err
    assert "no mistakes found" in out
    assert "ParagonSR2 x2" in out
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("change", "key", "found"),
    [
        ({"num_gpu": 99}, "num_gpu", "found 99; accepted: at most "),
        ({"path": {"pretrain_network_g": "nowhere.safetensors"}}, "path.pretrain_network_g", "nowhere.safetensors"),
        ({"path": {"resume_state": "nowhere.state"}}, "path.resume_state", "nowhere.state"),
        ({"network_g": {"type": "ParagonSR2", "num_feet": 8}}, "network_g.num_feet", "did you mean num_feat?"),
        ({"network_g": {"type": "ParagonSR3"}}, "network_g.type", "did you mean ParagonSR2?"),
        ({"network_g": {"type": "nafnet32"}}, "network_g", "scale"),
    ],
)
def test_mistakes_found_before_anything_is_written(
    options: dict[str, Any],
    run_training: Run,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    change: dict[str, Any],
    key: str,
    found: str,
) -> None:
    for section, value in change.items():
        options[section] = options[section] | value if section == "path" else value
    assert run_training(options) == 2
    message = capfd.readouterr().err.strip()
    assert len(message.splitlines()) == 1, message
    assert "options.yml:" in message
    assert f": {key}" in message
    assert found in message
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_a_folder_that_is_missing_or_empty(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    options["datasets"]["train"]["dataroot_gt"] = str(tmp_path / folder)
    assert run_training(options) == 2
    message = capfd.readouterr().err.strip()
    assert len(message.splitlines()) == 1, message
    assert "datasets.train.dataroot_gt: " in message
    assert folder in message


def test_a_checkpoint_that_is_not_there(
    options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_training(options, "--resume", "4") == 2
    message = capfd.readouterr().err.strip()
    assert message.startswith("--resume: ")
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "experiments").exists()


def test_amp_that_the_device_lacks_is_a_notice(options: dict[str, Any], run_training: Run, experiment: Path) -> None:
    options["use_amp"] = True
    assert run_training(options) == 0
    log = (experiment / "train.log").read_text(encoding="utf-8")
    assert log.count("use_amp: fp16 is not usable") == 1


class Scatter(nn.Module):
    """Uses an operation that torch has no deterministic form of, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.network_info = NetworkInfo(type="scatter", scale=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        torch.zeros(4).put_(torch.tensor([0]), torch.tensor([1.0]))
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def scatter_net(*, scale: int = 2) -> Scatter:
    return Scatter()


def test_a_network_that_cannot_be_deterministic_is_refused_by_name(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if "scatter" not in NETWORKS.names():
        NETWORKS.register("scatter")(scatter_net)
    options["network_g"] = {"type": "scatter"}
    assert run_training(options) == 0
    capfd.readouterr()
    options |= {"deterministic": True, "name": "second"}
    try:
        assert run_training(options) == 2
    finally:
        torch.use_deterministic_algorithms(False)
    message = capfd.readouterr().err.strip()
    assert "deterministic: found true, but network_g scatter cannot be: put_" in message
    assert not (tmp_path / "experiments" / "second").exists()


@pytest.mark.parametrize(
    ("metric", "least"),
    [({"type": "psnr", "crop_border": 28}, 57), ({"type": "ssim", "crop_border": 23}, 57), (None, 64)],
)
def test_an_image_that_a_metric_cannot_measure_is_found_before_anything_is_written(
    options: dict[str, Any],
    run_training: Run,
    photos: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    metric: dict[str, Any] | None,
    least: int,
) -> None:
    for kind, side in (("gt", 56), ("lq", 28)):
        shutil.copytree(photos / "val" / kind, tmp_path / kind)
        Image.new("RGB", (64 * side // 56, side)).save(tmp_path / kind / "09.png")
        options["datasets"]["val"][f"dataroot_{kind}"] = str(tmp_path / kind)
    if metric is None:
        from torchvision.models import squeezenet1_1

        torch.save(squeezenet1_1().state_dict(), tmp_path / "backbone.pth")
        metric = {"type": "lpips", "net": "squeeze", "weights_path": str(tmp_path / "backbone.pth")}
    options["val"]["metrics"]["mine"] = metric
    assert run_training(options) == 2
    message = capfd.readouterr().err.strip()
    assert len(message.splitlines()) == 1, message
    assert "options.yml:" in message
    assert "val.metrics.mine: found an image of 56 px in held out" in message
    assert str(Path("gt") / "09.png") in message
    assert f"{least} px at least" in message
    assert not (tmp_path / "experiments").exists()
