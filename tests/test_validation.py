"""Averages, bicubic, losses and pictures of a validation; it changes nothing about what it validates."""

from __future__ import annotations

import logging
import math
import multiprocessing
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from traiNNer.losses import build_loss
from traiNNer.losses.base import Loss
from traiNNer.metrics import build_metric
from traiNNer.types import NetworkInfo, Sample
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.images import read_image, to_float
from traiNNer.utils.panels import side_by_side
from traiNNer.validation import Validator, bicubic

SIZES = [(24, 31), (40, 16), (17, 17), (30, 22), (16, 48)]


class Double(nn.Module):
    """Bilinear enlargement with a learned brightness; scale 2."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(3)
        self.network_info = NetworkInfo(type="double", scale=2)

    def forward(self, lq: Tensor) -> Tensor:
        if self.training:
            lq = self.norm(lq)
        return self.gain * nn.functional.interpolate(lq, scale_factor=2, mode="bilinear")


class Samples:
    """Pairs of this process; draws from the global generator, as making a DataLoader iterator does."""

    def __init__(self, sizes: list[tuple[int, int]], rank: int = 0, world_size: int = 1, gt: bool = True) -> None:
        self.pairs = [self.pair(number, *size, gt) for number, size in enumerate(sizes)][rank::world_size]

    @staticmethod
    def pair(number: int, height: int, width: int, gt: bool) -> Sample:
        generator = torch.Generator().manual_seed(number)
        coarse = torch.rand(1, 3, 6, 6, generator=generator)
        sharp = nn.functional.interpolate(coarse, (2 * height, 2 * width), mode="bicubic").clamp(0, 1)
        lq = nn.functional.interpolate(sharp, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        sample: Sample = {"lq": lq[0], "lq_path": f"set/lq/{number}.png"}
        return {**sample, "gt": sharp[0], "gt_path": f"set/gt/{number}.png"} if gt else sample

    def __iter__(self) -> Iterator[Sample]:
        torch.randint(2**31, ())
        return iter(self.pairs)


METRICS = {"psnr": {"type": "psnr", "crop_border": 2}, "ssim": {"type": "ssim", "test_y_channel": True}}


def validator(samples: Samples, **options: object) -> Validator:
    metrics = {label: build_metric(entry) for label, entry in METRICS.items()}
    return Validator("set", samples, metrics, scale=2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_values_are_the_means_over_any_number_of_images_of_any_size(count: int) -> None:
    samples, net = Samples(SIZES[:count]), Double()
    report = validator(samples).run(net, 1)
    assert report.images == len(report.each) == count
    assert report.seconds > 0
    for label, entry in METRICS.items():
        metric = build_metric(entry)
        expected = [metric(net.eval()(pair["lq"][None]), pair["gt"][None]) for pair in samples.pairs]
        assert report.values[label] == pytest.approx(sum(expected) / count, abs=1e-9)
        assert [each.values[label] for each in report.each] == pytest.approx(expected, abs=1e-9)


def test_baseline_is_bicubic_and_the_same_before_and_after_a_run() -> None:
    samples = Samples(SIZES)
    before = validator(samples).baseline()
    ran = validator(samples)
    ran.run(Double(), 1)
    assert ran.baseline() == before
    metric = build_metric(METRICS["psnr"])
    expected = [metric(bicubic(pair["lq"][None], 2), pair["gt"][None]) for pair in samples.pairs]
    assert before["psnr"] == pytest.approx(sum(expected) / len(expected), abs=1e-9)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_pillows(scale: int) -> None:
    lq = (torch.rand(1, 3, 13, 9, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    for channel in range(3):
        plane = Image.fromarray(lq[0, channel].numpy(), mode="F")
        expected = np.asarray(plane.resize((9 * scale, 13 * scale), Image.Resampling.BICUBIC)).clip(0, 1)
        assert np.allclose(bicubic(lq, scale)[0, channel].numpy(), expected, atol=1e-5)


def test_loss_is_the_weighted_sum_averaged_over_images() -> None:
    samples, net = Samples(SIZES[:3]), Double()
    losses = {"l1": (build_loss({"type": "l1loss"}), 0.5), "mse": (build_loss({"type": "mseloss"}), 2.0)}
    expected = 0.0
    for pair in samples.pairs:
        difference = net.eval()(pair["lq"][None]) - pair["gt"][None]
        expected += (0.5 * difference.abs().mean() + 2 * difference.square().mean()).item() / 3
    assert validator(samples, fidelity_losses=lambda: losses).run(net, 1).loss == pytest.approx(expected, rel=1e-6)
    assert validator(samples).run(net, 1).loss is None


def test_identical_and_unmeasurable_images_do_not_poison_or_hide() -> None:
    samples, net = Samples(SIZES[:2]), Double()
    samples.pairs[0]["gt"] = net.eval()(samples.pairs[0]["lq"][None])[0].detach()
    assert math.isfinite(validator(samples).run(net, 1).values["psnr"])
    with torch.no_grad():
        net.gain.fill_(math.nan)
    assert math.isnan(validator(samples).run(net, 1).values["psnr"])


class Elsewhere(Loss):
    """A loss whose network is on another device, as on a GPU whose memory is full; it notes where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("network", torch.zeros(1, device="meta"))
        self.moves: list[str] = []

    def to(self, device: torch.device) -> Elsewhere:
        self.moves.append(str(device))
        self.network = torch.zeros(1, device=device)
        return self

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().mean() + self.network.sum()


def test_a_loss_comes_to_an_image_that_is_elsewhere_and_goes_home() -> None:
    loss, plain = Elsewhere(), build_loss({"type": "l1loss"})
    found, expected = (
        validator(Samples(SIZES), fidelity_losses=lambda each=each: {"it": (each, 1.0)}).run(Double(), 1).loss
        for each in (loss, plain)
    )
    assert found == pytest.approx(expected)
    assert loss.moves == ["cpu", "meta"] * len(SIZES)
    assert loss.network.device.type == "meta"


def test_sizes_that_differ_by_a_pixel_are_compared_where_both_are(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("traiNNer"), "propagate", True)
    samples, net = Samples(SIZES[:3]), Double()
    exact = validator(samples).run(net, 1).values
    for pair in samples.pairs:
        pair["gt"] = nn.functional.pad(pair["gt"], (0, 1, 0, 1))
    losses = {"l1": (build_loss({"type": "l1loss"}), 1.0)}
    assert validator(samples, fidelity_losses=lambda: losses).run(net, 1).values == exact
    assert caplog.text.count("what both have is compared") == 1


def test_tiles_give_the_same_values() -> None:
    samples, net = Samples(SIZES), Double()
    whole, tiled = validator(samples).run(net, 1), validator(samples, tile_size=8, tile_overlap=2).run(net, 1)
    assert tiled.values == pytest.approx(whole.values, abs=1e-6)


def test_validating_changes_nothing() -> None:
    net = Double().train()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = {name: module.training for name, module in net.named_modules()}
    random.seed(0)
    np.random.seed(0)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    checked = validator(Samples(SIZES))
    checked.baseline()
    checked.run(net, 1)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert net.gain.requires_grad
    assert torch.is_grad_enabled()


def test_without_ground_truth_only_results_are_made(tmp_path: Path) -> None:
    report = validator(Samples(SIZES[:2], gt=False), save_folder=tmp_path, suffix="x2").run(Double(), None)
    assert report.values == {}
    assert report.loss is None
    assert report.images == 2
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["0_x2.png", "1_x2.png"]


def test_pictures_hold_the_result_and_the_comparison(tmp_path: Path) -> None:
    samples, net = Samples(SIZES[:2]), Double()
    report = validator(samples, save_folder=tmp_path).run(net, 500)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert names == {"0/0_500.png", "0/0_500_compare.png", "1/1_500.png", "1/1_500_compare.png"}
    assert report.pictures == [tmp_path / "0/0_500_compare.png", tmp_path / "1/1_500_compare.png"]
    output = net.eval()(samples.pairs[0]["lq"][None])[0].detach()
    written = to_float(read_image(tmp_path / "0/0_500.png"))
    assert (written - output.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    comparison = to_float(read_image(report.pictures[0]))
    height, width = output.shape[-2:]
    column = (comparison.shape[-1] + 4) // 4  # a caption may be wider than its panel
    panels = [comparison[:, -height:, left : left + width] for left in range(0, 4 * column, column)]
    lq, gt = samples.pairs[0]["lq"][None], samples.pairs[0]["gt"][None]
    nearest = nn.functional.interpolate(lq, scale_factor=2)
    for panel, expected in zip(panels, [nearest, bicubic(lq, 2), output[None], gt], strict=True):
        assert (panel - expected[0].clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def test_images_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    samples = Samples(SIZES[:3], gt=False)
    for pair, path in zip(samples.pairs, ["a/1.png", "a/b/1.png", "a/1.jpg"], strict=True):
        pair["lq_path"] = path
    validator(samples, save_folder=tmp_path, roots=[Path("a")]).run(Double(), None)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} == {"1.png", "b/1.png", "1_2.png"}


def test_an_image_that_a_metric_cannot_measure_is_named() -> None:
    with pytest.raises(ConfigError, match=r"set/lq/0\.png: an image of 14x8 px is too small"):
        validator(Samples([(4, 7)])).baseline()


def test_panels_are_placed_pixel_by_pixel(tmp_path: Path) -> None:
    images = [torch.full((1, 3, 20, 300), value) for value in (0.2, 0.6)]
    side_by_side(tmp_path / "p.png", [("first", images[0]), ("second", images[1])])
    picture = read_image(tmp_path / "p.png")
    assert picture.shape == (44, 604, 3)
    assert (picture[24:, :300] == 51).all()
    assert (picture[24:, 304:] == 153).all()
    assert (picture[:24, :100] < 128).any()  # the caption


def test_large_panels_show_their_middle(tmp_path: Path) -> None:
    image = torch.zeros(3, 1034, 40)
    image[:, 5:-5] = 1
    side_by_side(tmp_path / "p.png", [("large", image)])
    picture = read_image(tmp_path / "p.png")
    assert picture.shape[0] == 1024 + 24
    assert (picture[24:, :40] == 255).all()


def _validate_as_rank(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = Path(folder, "rendezvous").as_uri()
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    losses = {"l1": (build_loss({"type": "l1loss"}), 1.0)}
    checked = validator(Samples(SIZES, rank, world_size), fidelity_losses=lambda: losses)
    report = checked.run(Double(), 1)
    baseline = validator(Samples(SIZES, rank, world_size)).baseline()
    torch.save(
        {**report.values, "loss": report.loss, "images": report.images, "bicubic": baseline}, f"{folder}/{rank}.pt"
    )
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="file rendezvous is for POSIX")
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_validate_as_rank, args=(rank, 2, str(tmp_path))) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    losses = {"l1": (build_loss({"type": "l1loss"}), 1.0)}
    alone = validator(Samples(SIZES), fidelity_losses=lambda: losses)
    report = alone.run(Double(), 1)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.pop("images") == 5
        assert found.pop("bicubic") == pytest.approx(alone.baseline(), rel=1e-12)
        assert found == pytest.approx({**report.values, "loss": report.loss}, rel=1e-12)
