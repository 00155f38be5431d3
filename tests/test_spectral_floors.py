"""Spectral losses and metrics where a target is flat, weak, far from 0, or not what they measure."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from traiNNer.losses import build_loss
from traiNNer.metrics import build_metric
from traiNNer.utils import power_spectrum
from traiNNer.utils.errors import ConfigError

SPECTRA = ("raps_distance", "hf_share", "grid_energy")


def white(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Flat images


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("options", [{}, {"quantization": 0.0}], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_a_flat_image_is_not_ruined_by_rounding(name: str, options: dict[str, float], level: float) -> None:
    target = torch.full((1, 3, 48, 64), level)
    output = target * (1 + 3e-8 * white(1, 3, 48, 64).float())
    assert build_metric({"type": name, **options})(output, target) < 1


@pytest.mark.parametrize(("name", "limit"), [("raps_distance", 3.5), ("hf_share", 0.1), ("grid_energy", 3.5)])
def test_noise_below_a_level_on_a_flat_image_counts_little(name: str, limit: float) -> None:
    """Noise of 0.001 has the power of rounding to 8 bits, so that it is a factor of two, 3 dB."""
    target = torch.ones(1, 3, 48, 64, dtype=torch.float64)
    metric = build_metric({"type": name})
    assert metric(target + 1e-3 * white(1, 3, 48, 64), target) < limit
    assert metric((target + 1e-3 * white(1, 3, 48, 64)).mul(255).round() / 255, target) < limit


def test_noise_of_rounding_is_what_the_floor_takes_it_for() -> None:
    """Values of many levels, rounded: twice the floor for a flat target, 10 log10(2) dB in every bin."""
    image = torch.rand(1, 8, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise, flat = image.mul(255).round() / 255 - image, torch.zeros_like(image)
    for options in ({"channel_mode": "each"}, {"channel_mode": "mean"}):
        assert build_metric({"type": "raps_distance", **options})(noise, flat) == pytest.approx(3.01, abs=0.4)
    assert build_metric({"type": "grid_energy"})(noise, flat) == pytest.approx(3.01, abs=0.4)
    assert build_metric({"type": "hf_share"})(noise, flat) < 0.01


# What is not measured


@pytest.mark.parametrize("name", ["field_error", "spectrum_error"])
def test_metrics_of_volumes_refuse_images(name: str) -> None:
    metric = build_metric({"type": name, "volume": True, "crop_border": 1})
    with pytest.raises(ConfigError, match=r"found a tensor of 4 axes; accepted: \(B, C, D, H, W\)"):
        metric(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
    with pytest.raises(ConfigError, match="found 16x16x1 px; accepted: "):
        metric(torch.rand(1, 3, 1, 16, 16), torch.rand(1, 3, 1, 16, 16))
    with pytest.raises(ConfigError, match="found a tensor of 3 axes; accepted: "):
        build_metric({"type": name})(torch.rand(3, 16, 16), torch.rand(3, 16, 16))
    with pytest.raises(ConfigError, match="16x16x5 px is too small for this metric: at least 4x4x4 px must remain"):
        metric(torch.rand(1, 3, 5, 16, 16), torch.rand(1, 3, 5, 16, 16))


def test_the_border_of_a_volume_is_that_of_its_depth_too() -> None:
    target = torch.rand(1, 2, 8, 9, 10)
    output = target.clone()
    output[:, :, 0] += 1
    output[:, :, -1] += 1
    assert build_metric({"type": "field_error", "volume": True, "crop_border": 1})(output, target) == 0


@pytest.mark.parametrize("name", ["fielderrorloss", "spectrumerrorloss", "waveletloss"])
def test_losses_refuse_shapes_that_differ(name: str) -> None:
    given = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    with pytest.raises(ConfigError, match=r"output of \(2, 3, 16, 16\) cannot .* target of \(2, 1, 16, 16\)"):
        build_loss({"type": name})(*given)


# Numbers


@pytest.mark.parametrize("offset", [300.0, 1e5])
@pytest.mark.parametrize("channel_mode", ["mean", "each"])
@pytest.mark.parametrize(
    "options",
    [{"type": "spectrumerrorloss"}, {"type": "waveletloss"}, {"type": "waveletloss", "wavelet": "db4"}],
    ids=str,
)
def test_an_offset_of_the_field_costs_no_digits(options: dict[str, Any], channel_mode: str, offset: float) -> None:
    """Channels of means of their own, in float32; the reference is what float64 makes of the same values."""
    means = torch.tensor([1.0, -2.0, 0.7]).view(3, 1, 1) * offset
    target = means + white(2, 3, 32, 32, dtype=torch.float32)
    output = target + 0.3 * white(2, 3, 32, 32, seed=1, dtype=torch.float32)
    loss = build_loss({**options, "channel_mode": channel_mode, "floor": 0.0})
    assert float(loss(output, target)) == pytest.approx(float(loss(output.double(), target.double())), rel=1e-5)


@pytest.mark.parametrize("name", ["fielderrorloss", "spectrumerrorloss", "waveletloss"])
def test_no_gradient_reaches_the_target(name: str) -> None:
    output, target = (white(1, 2, 16, 16, seed=seed).requires_grad_() for seed in range(2))
    build_loss({"type": name})(output, target).backward()
    assert output.grad is not None
    assert target.grad is None


def test_ties_belong_to_the_bin_that_begins_there() -> None:
    """1.5 cycles per shorter side, which floating point makes 1.4999..., are in [1.5, 2.5)."""
    found = 0
    for height in range(5, 40):
        for width in range(height, 60):
            exact = [column for column in range(1, width // 2) if (2 * column * height) % (2 * width) == width]
            below = power_spectrum.wavenumbers((height, width))[1].flatten().frac() < 0.5
            for column in exact:
                index = power_spectrum.bins(
                    (height, width), anisotropic=False, device=torch.device("cpu"), dtype=torch.float64
                ).index[0]
                place = (2 * column * height) // (2 * width)
                if place < min(height, width) // 2:
                    assert int(index[column]) == place
                    found += bool(below[column])
    assert found


def test_bins_of_a_few_sizes_are_kept() -> None:
    """A matrix can take 32 MiB or more, and validation images come in any size."""
    power_spectrum.bins.cache_clear()
    for width in range(8, 28):
        power_spectrum.binned_power(torch.rand(8, width))
    assert power_spectrum.bins.cache_info().currsize == 8


def test_grid_energy_does_not_depend_on_the_mean() -> None:
    target, output = 1e-3 * white(1, 3, 33, 48), 2e-3 * white(1, 3, 33, 48, seed=1)
    metric = build_metric({"type": "grid_energy", "quantization": 0.0})
    assert metric(output, target) > 3
    assert metric(output + 100, target + 100) == pytest.approx(metric(output, target), rel=1e-3)


def test_bins_can_be_summed_after_a_caller_has_chosen_tf32() -> None:
    """Then torch has two settings that contradict each other, and refuses to say what holds."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with pytest.raises(RuntimeError):
            torch.get_float32_matmul_precision()
        field = white(1, 32, 32, dtype=torch.float32)
        power, _ = power_spectrum.binned_power(field)
        torch.testing.assert_close(power.double(), power_spectrum.binned_power(field.double())[0], rtol=1e-4, atol=0)
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_filters_are_not_copied_to_the_device_again() -> None:
    class Operations(TorchDispatchMode):
        names: ClassVar[list[str]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(str(func))
            return func(*args, **(kwargs or {}))

    loss, pair = build_loss({"type": "waveletloss", "wavelet": "db2"}), [torch.rand(1, 3, 32, 32) for _ in range(2)]
    loss(*pair)
    with Operations():
        loss(*pair)
    assert any("convolution" in name for name in Operations.names)
    assert not [name for name in Operations.names if "lift_fresh" in name or "_to_copy" in name]
