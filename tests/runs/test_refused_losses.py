"""What the losses of a run demand, asked before it starts: a mistake is a line with its place, nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from traiNNer.utils.registry import LOSSES

Run = Callable[..., int]

ROOT = Path(__file__).resolve().parents[2]
L1 = {"type": "l1loss", "loss_weight": 1.0}
GAN = {"type": "ganloss", "loss_weight": 0.1}
NET_D = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ({"type": "mssimloss"}, "mssimloss: found images of 8x8 px; accepted: at least 11x11 px"),
        ({"type": "perceptualloss", "pretrained": False}, "crops of 8 px (gt_size), which are too small"),
        ({"type": "consistencyloss"}, "crops of 8 px (gt_size), which are too small"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_crops_that_are_too_small_for_a_loss(
    options: dict[str, Any],
    run_training: Run,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    loss: dict[str, Any],
    reason: str,
) -> None:
    options["datasets"]["train"]["gt_size"] = 8
    options["train"]["losses"] = [L1, {**loss, "loss_weight": 1.0, "start_iter": 6}]
    assert run_training(options) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "options.yml:" in line
    assert "train.losses[1]: " in line
    assert reason in line
    assert not (tmp_path / "experiments").exists()
    options["datasets"]["train"]["gt_size"] = 32
    assert run_training(options, "--check") == 0


def test_validation_images_that_are_too_small_for_a_loss(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for kind, side in (("gt", 8), ("lq", 4)):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (side, side)).save(tmp_path / kind / "tiny.png")
        options["datasets"]["val"][f"dataroot_{kind}"] = str(tmp_path / kind)
    options["val"]["metrics"] = {"psnr": {"type": "psnr"}}
    options["train"]["losses"] = [L1, {"type": "ssimloss", "loss_weight": 1.0}]
    assert run_training(options) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "train.losses[1]: found an image of 8 px in held out, too small for ssimloss" in line
    assert "tiny.png" in line
    assert not (tmp_path / "experiments" / "tiny").exists()


def test_a_missing_optimizer_of_net_d_is_one_line(
    options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    options |= {"network_d": NET_D}
    options["train"]["losses"] = [L1, GAN]
    assert run_training(options) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "train.losses[1]: found ganloss, which needs an optimizer of net_d; accepted: train.optim_d" in line


@pytest.mark.parametrize(
    ("loss", "notice"),
    [
        ({**L1, "discriminator_start_iter": 3}, "has no effect: the loss is not adversarial"),
        ({**GAN, "discriminator_start_iter": 9}, "net_d is never trained: the loss acts until iteration 8"),
        (
            {**GAN, "disable_after": 4, "discriminator_start_iter": 5},
            "net_d is never trained: the loss acts until iteration 4",
        ),
        (
            {**GAN, "start_iter": 2, "discriminator_start_iter": 5},
            "net_g feels net_d from iteration 2, before net_d is trained",
        ),
        (
            {
                **GAN,
                "loss_weight": 0,
                "target_weight": 0.1,
                "start_iter": 1,
                "target_iter": 6,
                "discriminator_start_iter": 5,
            },
            "net_g feels net_d from iteration 1, before net_d is trained",
        ),
        ({**GAN, "start_iter": 5, "discriminator_start_iter": 2}, ""),
        ({**GAN, "discriminator_start_iter": 1}, ""),
    ],
)
def test_a_net_d_that_starts_late_is_noticed(
    options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str], loss: dict[str, Any], notice: str
) -> None:
    options |= {"network_d": NET_D}
    options["train"] |= {"losses": [L1, {**loss, "name": "it"}], "optim_d": {"type": "AdamW", "lr": 1e-3}}
    assert run_training(options, "--check") == 0
    found = [line for line in capfd.readouterr().err.splitlines() if "].discriminator_start_iter: " in line]
    assert [line.partition("discriminator_start_iter: ")[2] for line in found] == ([notice] if notice else [])


def test_the_example_of_the_guide_for_contributors_trains(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    part = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Adding a loss")[2]
    code = part.partition("```python\n")[2].partition("\n```\n")[0]
    exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "example"})
    try:
        example = LOSSES.get("squaredloss").__doc__.partition("```yaml")[2].partition("```")[0]
        options["train"]["losses"] = yaml.safe_load(example)
        assert run_training(options) == 0
    finally:
        key = LOSSES.normalize("squaredloss")
        del LOSSES._factories[key], LOSSES._spelled[key]
