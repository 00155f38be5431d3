"""Adversarial training for real: nano against MUNet on photographs, its phases, its resume, and what net_d learns."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from traiNNer.archs import build_network

Run = Callable[..., int]

NET_D = {"type": "munet", "num_feat": 16}
HELD_OUT = ("rocket", "cat")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 96-pixel tiles of three photographs in `train`, and of two others in `held_out`."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("tiles")
    for name in ("astronaut", "coffee", "hubble_deep_field", *HELD_OUT):
        picture = Image.fromarray(getattr(data, name)()[..., :3])
        part = folder / ("held_out" if name in HELD_OUT else "train")
        part.mkdir(exist_ok=True)
        for top in range(0, picture.height - 95, 96):
            for left in range(0, picture.width - 95, 96):
                picture.crop((left, top, left + 96, top + 96)).save(part / f"{name}_{top}_{left}.png")
    return folder


def adversarial(options: dict[str, Any], tiles: Path) -> dict[str, Any]:
    """nano, MUNet of 16 features, L1, perceptual and R3GAN: net_d learns from 40, net_g feels it from 60 of 120."""
    options["datasets"]["train"] = {
        "name": "tiles",
        "type": "PairedImageDataset",
        "dataroot_gt": str(tiles / "train"),
        "gt_size": 48,
        "batch_size_per_gpu": 8,
        "num_worker_per_gpu": 0,
    }
    options["val"]["val_enabled"] = False
    options["network_g"] = {"type": "paragonsr2_nano"}
    options["network_d"] = NET_D
    options["train"] |= {
        "total_iter": 120,
        "optim_g": {"type": "AdamW", "lr": 1e-3},
        "optim_d": {"type": "AdamW", "lr": 2e-3},
        "scheduler": {"type": "CosineAnnealingLR", "T_max": 120},
        "losses": [
            {"type": "l1loss", "loss_weight": 1.0},
            {"type": "perceptualloss", "loss_weight": 0.01, "layers": ["relu1_2", "relu2_2"], "pretrained": False},
            {
                "type": "ganloss",
                "gan_type": "r3gan",
                "loss_weight": 0.0,
                "target_weight": 0.02,
                "start_iter": 60,
                "target_iter": 80,
                "discriminator_start_iter": 40,
                "penalty_interval": 4,
            },
        ],
    }
    options["logger"] |= {"print_freq": 20, "save_checkpoint_freq": 4, "use_tb_logger": False}
    return options


def weights(folder: Path, network: str, iteration: int) -> dict[str, Tensor]:
    part = "models" if network.endswith("_ema") else "resume_models"
    return load_file(folder / part / f"{network}_{iteration}.safetensors")


def accuracy(folder: Path, iteration: int, tiles: Path) -> float:
    """The share of held-out photographs' tiles that net_d finds more real than net_g's enlargement of them."""
    from PIL import Image

    net_g = build_network({"type": "paragonsr2_nano", "scale": 2}).eval()
    net_d = build_network(NET_D).eval()
    net_g.load_state_dict(weights(folder, "net_g", iteration))
    net_d.load_state_dict(weights(folder, "net_d", iteration))
    right = []
    for path in sorted((tiles / "held_out").iterdir()):
        gt = torch.from_numpy(np.asarray(Image.open(path), dtype=np.float32) / 255).permute(2, 0, 1)[None]
        lq = torch.nn.functional.interpolate(gt, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
        with torch.no_grad():
            right.append(bool(net_d(gt).mean() > net_d(net_g(lq)).mean()))
    return sum(right) / len(right)


def figures(log: str) -> dict[str, str]:
    """Iteration to the losses of its log line, without speeds."""
    lines = re.findall(r"\[iter ([\d,]+)/[\d,]+, epoch \d+\] .*?left \S+\s+(.*)", log)
    return dict(lines)


@pytest.mark.slow
def test_a_gan_run_learns_shows_its_phases_and_resumes_to_the_bit(
    options: dict[str, Any], run_training: Run, tiles: Path, tmp_path: Path
) -> None:
    straight, parts = tmp_path / "experiments" / "straight", tmp_path / "experiments" / "parts"
    adversarial(options, tiles)
    assert run_training(options | {"name": "straight"}) == 0
    for total_iter in (68, 120):  # in the middle of the ramp
        options["train"]["total_iter"] = total_iter
        assert run_training(options | {"name": "parts"}, "--auto_resume") == 0

    for name in ("net_g", "net_g_ema", "net_d"):
        one, two = (weights(folder, name, 120) for folder in (straight, parts))
        assert all(torch.equal(value, two[key]) for key, value in one.items()), name
    log, resumed = ((folder / "train.log").read_text(encoding="utf-8") for folder in (straight, parts))
    assert {at: line for at, line in figures(resumed).items() if at != "68"} == figures(log)
    phases = [line.partition("[iter ")[2] for line in log.splitlines() if "] loss ganloss" in line]
    assert phases == [
        "40] loss ganloss: net_d starts to train",
        "60] loss ganloss started, weight 0",
        "80] loss ganloss reached its target, weight 0.02",
    ]
    assert "ganloss" not in figures(log)["20"]
    assert {"ganloss", "ganloss_d", "ganloss_r1", "ganloss_r2"} <= set(figures(log)["120"].split())
    right = [accuracy(straight, iteration, tiles) for iteration in range(104, 121, 4)]
    assert min(right) >= 0.7, right


def test_weights_of_a_discriminator_are_taken_over(
    options: dict[str, Any], run_training: Run, tiles: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adversarial(options, tiles)
    options["network_g"] = {"type": "ParagonSR2", "num_feat": 8, "num_groups": 1, "num_blocks": 1}
    options["network_d"] = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}
    options["train"] |= {"total_iter": 2, "losses": [{"type": "ganloss", "loss_weight": 1.0}]}
    options["train"]["optim_d"]["lr"] = 1e-12
    assert run_training(options) == 0
    first = tmp_path / "experiments" / "tiny" / "resume_models" / "net_d_2.safetensors"
    kept = {name: value.clone() for name, value in load_file(first).items()}
    torch.save({"discriminator": {**kept, "other": torch.zeros(1)}}, tmp_path / "net_d.pth")
    options |= {"name": "second", "manual_seed": 2}
    options["path"] |= {"pretrain_network_d": str(tmp_path / "net_d.pth"), "param_key_d": "discriminator"}
    assert run_training(options) == 2
    assert "path.pretrain_network_d" in capfd.readouterr().err
    options["path"]["strict_load_d"] = False
    assert run_training(options) == 0
    taken = load_file(tmp_path / "experiments" / "second" / "resume_models" / "net_d_2.safetensors")
    torch.testing.assert_close(taken["in_conv.weight"], kept["in_conv.weight"], rtol=0, atol=1e-6)


def test_a_discriminator_that_joins_a_resumed_run_takes_its_pretrained_weights(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    net_d = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}
    save_file(build_network(net_d).state_dict(), tmp_path / "net_d.safetensors")
    options["val"]["val_enabled"] = False
    assert run_training(options) == 0
    options |= {"network_d": net_d}
    options["path"]["pretrain_network_d"] = str(tmp_path / "net_d.safetensors")
    options["train"]["losses"] += [{"type": "ganloss", "loss_weight": 0.1}]
    options["train"] |= {"total_iter": 9, "optim_d": {"type": "AdamW", "lr": 1e-12}}
    assert run_training(options, "--auto_resume") == 0
    taken = load_file(tmp_path / "experiments" / "tiny" / "resume_models" / "net_d_9.safetensors")
    given = load_file(tmp_path / "net_d.safetensors")
    torch.testing.assert_close(taken["in_conv.weight"], given["in_conv.weight"], rtol=0, atol=1e-6)
    options["train"]["total_iter"] = 10
    assert run_training(options, "--auto_resume") == 0
    log = (tmp_path / "experiments" / "tiny" / "train.log").read_text(encoding="utf-8")
    assert log.count("path.pretrain_network_d is not used: the run is resumed") == 1
