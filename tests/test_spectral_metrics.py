"""Field error, spectrum error and other figures of spectra: losses and metrics against NumPy, and their gradients.

PYTHONPATH=. python tests/test_spectral_metrics.py        # without calling pytest
"""

from __future__ import annotations

import logging
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses import build_loss
from traiNNer.metrics import build_metric
from traiNNer.metrics.spectral_metric import GridEnergy
from traiNNer.utils import power_spectrum
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.power_spectrum import binned_power

PLAIN = {"type": "spectrumerrorloss", "floor": 0.0}
METRICS = ["field_error", "spectrum_error", "raps_distance", "hf_share", "grid_energy"]


def natural(*size: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images of 8-bit levels with the 1/f spectrum of photographs."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size[-2:]
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)).clamp(min=1 / min(size[-2:]))
    noise = torch.fft.rfft2(torch.randn(size, generator=generator, dtype=torch.float64))
    image = torch.fft.irfft2(noise / radius, s=(height, width))
    low, high = image.amin(dim=(-2, -1), keepdim=True), image.amax(dim=(-2, -1), keepdim=True)
    return ((image - low) / (high - low) * 255).round().div(255).to(dtype)


def noisy(target: Tensor, strength: float, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return target + strength * torch.randn(target.shape, generator=generator, dtype=target.dtype)


def resized(image: Tensor, scale: int) -> Tensor:
    small = F.interpolate(image, scale_factor=1 / scale, mode="bicubic", antialias=True)
    return F.interpolate(small, scale_factor=scale, mode="bicubic")


def value(options: dict[str, Any], output: Tensor, target: Tensor) -> float:
    return float(build_loss(options)(output, target))


# The definitions, in NumPy and float64


def frames(field: Tensor) -> np.ndarray:
    """(B, T, C, H, W) in float64."""
    array = field.double().numpy()
    return array if array.ndim == 5 else array[:, None]


def field_error_by_numpy(output: Tensor, target: Tensor) -> float:
    ours, theirs = frames(output), frames(target)
    return float(np.mean(((ours - theirs) ** 2).mean((-2, -1)) / ((theirs**2).mean((-2, -1)) + 1e-8)))


def annuli(field: np.ndarray) -> np.ndarray:
    """Mean power of each annulus of (..., H, W)."""
    height, width = field.shape[-2:]
    side = min(height, width)
    y, x = np.fft.fftfreq(height) * side, np.fft.fftfreq(width) * side
    radius = np.sqrt(y[:, None] ** 2 + x[None] ** 2)
    power = np.abs(np.fft.fft2(field)) ** 2
    inside = [(radius >= k - 0.5) & (radius < k + 0.5) for k in range(1, side // 2 + 1)]
    return np.stack([power[..., mask].mean(axis=-1) for mask in inside], axis=-1)


def areas(count: int) -> np.ndarray:
    k = np.arange(1, count + 1)
    return math.pi * ((k + 0.5) ** 2 - (k - 0.5) ** 2)


def spectrum_error_by_numpy(
    output: Tensor, target: Tensor, channel_mode: str = "mean", floor: float = 0.0, quantization: float = 0.0
) -> float:
    fields = [frames(field) for field in (output, target)]
    averaged = fields[0].shape[2] if channel_mode == "mean" else 1
    if channel_mode == "mean":
        fields = [field.mean(axis=2) for field in fields]
    ours, theirs = (power * areas(power.shape[-1]) for power in map(annuli, fields))
    noise = areas(ours.shape[-1]) * output.shape[-2] * output.shape[-1] * quantization**2 / 12 / averaged
    phi, psi = (1e-10 + floor * theirs + noise, 10.0) if floor else (1e-10, 1e-10)
    ours, theirs = np.log(ours + phi), np.log(theirs + phi)
    inner = tuple(range(1, ours.ndim))
    scale = np.maximum((theirs**2).mean(inner) + psi, 40 if floor else 0)
    return float(np.mean(((ours - theirs) ** 2).mean(inner) / scale))


SQUARES = [(2, 3, 32, 32), (1, 1, 128, 128), (2, 4, 2, 33, 33), (1, 5, 47, 47), (3, 2, 4, 4)]
OTHERS = [(2, 3, 40, 64), (1, 2, 3, 37, 50), (2, 1, 12, 64)]


@pytest.mark.parametrize("size", [*SQUARES, *OTHERS], ids=str)
def test_field_error_is_the_definition(size: tuple[int, ...]) -> None:
    target = natural(*size)
    output = noisy(target, 0.05)
    expected = field_error_by_numpy(output, target)
    assert value({"type": "fielderrorloss"}, output, target) == pytest.approx(expected, rel=1e-5)
    assert build_metric({"type": "field_error"})(output, target) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("size", [*SQUARES, *OTHERS], ids=str)
@pytest.mark.parametrize("channel_mode", ["mean", "each"])
@pytest.mark.parametrize("strength", [0.01, 0.05, 1.0])
def test_spectrum_error_is_the_definition(size: tuple[int, ...], channel_mode: str, strength: float) -> None:
    target = natural(*size)
    output = noisy(target, strength)
    expected = spectrum_error_by_numpy(output, target, channel_mode)
    found = value({**PLAIN, "channel_mode": channel_mode}, output, target)
    assert found == pytest.approx(expected, rel=1e-5)
    metric = build_metric({"type": "spectrum_error", "channel_mode": channel_mode})
    assert metric(output, target) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("channel_mode", ["mean", "each"])
def test_the_floor_is_the_definition(channel_mode: str) -> None:
    for given in ({"floor": 0.25, "quantization": 1 / 255}, {"floor": 0.05, "quantization": 0.0}):
        target = given["floor"] * natural(2, 3, 32, 32)  # the weaker ones have the largest logarithms
        output = noisy(target, 0.01)
        expected = spectrum_error_by_numpy(output, target, channel_mode, **given)
        found = value({"type": "spectrumerrorloss", "channel_mode": channel_mode, **given}, output, target)
        assert found == pytest.approx(expected, rel=1e-5)


def test_rounding_noise_is_what_rounding_adds() -> None:
    """The noise of the floor: power of the difference between an image and its 8-bit levels, in every bin."""
    image = torch.rand(64, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    power, plan = binned_power(((image * 255).round() / 255 - image)[:, 0])
    expected = plan.area * (64 * 64 / 255**2 / 12)
    torch.testing.assert_close(power.mean(dim=0), expected, rtol=0.15, atol=0)


def test_large_images_are_summed_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    target = natural(2, 3, 48, 60, dtype=torch.float64)
    found = []
    for limit in (2**23, 0):
        monkeypatch.setattr(power_spectrum, "_LARGEST_MATRIX", limit)
        power_spectrum.bins.cache_clear()
        output = noisy(target, 0.1).requires_grad_()
        loss = build_loss(PLAIN)(output, target)
        found.append((loss, torch.autograd.grad(loss, output)[0]))
    power_spectrum.bins.cache_clear()
    torch.testing.assert_close(found[0], found[1])


def sine(ky: int, kx: int, height: int, width: int) -> Tensor:
    y, x = torch.arange(height, dtype=torch.float64)[:, None] / height, torch.arange(width, dtype=torch.float64) / width
    return 0.5 + torch.sin(2 * math.pi * (ky * y + kx * x) + 0.3)


def test_sines_lie_in_the_bin_of_their_wavelength() -> None:
    """Whatever the shape; that of a sine with more cycles than half the shortest side is none."""
    chance, outside = random.Random(0), 0
    for _ in range(60):
        height, width = chance.randint(12, 70), chance.randint(12, 70)
        ky, kx = chance.randint(-(height // 2) + 1, height // 2 - 1), chance.randint(1, width // 2 - 1)
        power, _ = binned_power(sine(ky, kx, height, width)[None])
        total = 2 * (height * width / 2) ** 2
        wavenumber = math.hypot(ky / height, kx / width) * min(height, width)
        place = math.floor(wavenumber + 0.5) - 1
        if 0 <= place < min(height, width) // 2:
            assert power[0, place] > (1 - 1e-9) * power.sum(), (ky, kx, height, width)
        else:
            assert power.sum() < 1e-9 * total
            outside += 1
    assert outside < 30


@pytest.mark.parametrize(("height", "width"), [(24, 24), (31, 50), (50, 31)])
def test_anisotropic_bins_tell_the_axes_apart(height: int, width: int) -> None:
    side = min(height, width)
    for ky, kx in ((7, 0), (0, 5), (3, 9)):
        power, plan = binned_power(sine(ky, kx, height, width)[None], anisotropic=True)
        assert len(plan.area) == 2 * (side // 2)
        for part, cycles in zip(power[0].chunk(2), (ky * side / height, kx * side / width), strict=True):
            place = math.floor(cycles + 0.5) - 1
            if place >= 0:
                assert part[place] > (1 - 1e-9) * part.sum()
            else:
                assert part.sum() < 1e-9 * power.sum()
    target, options = natural(1, 1, 32, 32), {**PLAIN, "anisotropic": True}
    turned = target.transpose(-2, -1)
    assert value(PLAIN, turned, target) < 1e-9
    assert value(options, turned, target) > 1e-6


def test_volumes_have_shells() -> None:
    z, y, x = (torch.arange(length, dtype=torch.float64) / length for length in (12, 16, 20))
    field = torch.sin(2 * math.pi * (2 * z[:, None, None] + 4 * y[:, None] + 5 * x))[None]
    power, plan = binned_power(field, axes=3)
    place = math.floor(12 * math.sqrt((2 / 12) ** 2 + (4 / 16) ** 2 + (5 / 20) ** 2) + 0.5) - 1
    assert power[0, place] > (1 - 1e-9) * power.sum()
    shells = 4 / 3 * math.pi * ((np.arange(6) + 1.5) ** 3 - (np.arange(6) + 0.5) ** 3)
    np.testing.assert_allclose(plan.area.numpy(), shells)
    target = torch.rand(2, 3, 8, 9, 10, generator=torch.Generator().manual_seed(0))
    output = noisy(target, 0.1)
    whole = field_error_by_numpy(output.flatten(-3, -2), target.flatten(-3, -2))
    assert value({"type": "fielderrorloss", "volume": True}, output, target) == pytest.approx(whole, rel=1e-5)
    assert build_metric({"type": "spectrum_error", "volume": True})(output, target) == pytest.approx(
        value({**PLAIN, "volume": True}, output, target), rel=1e-4
    )


def test_a_time_axis_is_a_loop_over_frames() -> None:
    target = natural(2, 4, 3, 24, 24, dtype=torch.float64)
    output = noisy(target, 0.1)
    each = [value({"type": "fielderrorloss"}, output[:, t], target[:, t]) for t in range(4)]
    assert value({"type": "fielderrorloss"}, output, target) == pytest.approx(np.mean(each))
    frames_power = torch.stack([binned_power(output[:, t].mean(dim=1))[0] for t in range(4)], dim=1)
    torch.testing.assert_close(binned_power(output.mean(dim=2))[0], frames_power)


def test_channels_may_hide_their_errors_in_the_mean() -> None:
    target = natural(1, 3, 32, 32)
    output = target.clone()
    change = 0.2 * natural(32, 32, seed=5)
    output[:, 0] += change
    output[:, 1] -= change
    assert value(PLAIN, output, target) < 1e-6
    assert value({**PLAIN, "channel_mode": "each"}, output, target) > 5e-5


# Gradients

VARIANTS: list[dict[str, Any]] = [
    {"type": "fielderrorloss"},
    PLAIN,
    {"type": "spectrumerrorloss"},
    {"type": "spectrumerrorloss", "channel_mode": "each", "anisotropic": True},
    {"type": "waveletloss"},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [*VARIANTS, {**PLAIN, "volume": True}], ids=str)
def test_gradients_are_exact_in_float64(options: dict[str, Any]) -> None:
    shape = (2, 2, 4, 5, 6) if options.get("volume") else (2, 2, 7, 8)
    output, target = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = build_loss(options)
    assert torch.autograd.gradcheck(lambda field: loss(field, target), output.requires_grad_())


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, 1e6])
def test_gradients_are_finite_everywhere(options: dict[str, Any], scale: float) -> None:
    random_field = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fields = [torch.zeros_like(random_field), torch.full_like(random_field, 0.1), random_field]
    loss = build_loss(options)
    for output in fields:
        for target in fields:
            given = (scale * output).requires_grad_()
            found = loss(given, scale * target)
            (gradient,) = torch.autograd.grad(found, given)
            assert torch.isfinite(found)
            assert torch.isfinite(gradient).all()


def predictions(target: Tensor) -> dict[str, Tensor]:
    return {
        "near-flat": noisy(target.mean(dim=(-2, -1), keepdim=True).expand_as(target), 1e-3),
        "nearer flat": noisy(target.mean(dim=(-2, -1), keepdim=True).expand_as(target), 1e-4),
        "bicubic x2": resized(target, 2),
        "bicubic x4": resized(target, 4),
        "noisy": noisy(target, 0.02),
    }


def gradient_ratio(options: dict[str, Any], output: Tensor, target: Tensor) -> float:
    """Norm of a loss's gradient over that of L1's."""
    norms = []
    for each in (options, {"type": "l1loss"}):
        given = output.clone().requires_grad_()
        norms.append(float(torch.autograd.grad(build_loss(each)(given, target), given)[0].norm()))
    return norms[0] / norms[1]


BOUNDED: list[dict[str, Any]] = [
    {"type": "spectrumerrorloss"},
    {"type": "spectrumerrorloss", "anisotropic": True},
    {"type": "waveletloss"},
]


@pytest.mark.parametrize("options", BOUNDED, ids=str)
@pytest.mark.parametrize("channel_mode", ["mean", "each"])
@pytest.mark.parametrize("contrast", [1.0, 0.2, 0.1, 0.05, 0.02, 0.01])
def test_the_floor_bounds_the_gradient(options: dict[str, Any], channel_mode: str, contrast: float) -> None:
    """For 8-bit images of 64 px down to a contrast of two or three levels."""
    target = (0.5 + contrast * (natural(4, 3, 64, 64) - 0.5)).mul(255).round() / 255
    options = {**options, "channel_mode": channel_mode}
    ratios = {name: gradient_ratio(options, output, target) for name, output in predictions(target).items()}
    assert max(ratios.values()) < 50, ratios
    plain = {**options, "floor": 0.0}
    assert gradient_ratio(plain, predictions(target)["nearer flat"], target) > 50


def test_flat_targets_do_not_blow_up() -> None:
    """A tile of sky: a grey level or two, its fine structure is rounding noise."""
    target = (0.5 + 0.01 * natural(1, 3, 64, 64)).mul(255).round() / 255
    output = noisy(target, 0.02)
    assert gradient_ratio({"type": "spectrumerrorloss"}, output, target) < 50
    assert gradient_ratio(PLAIN, output, target) > 1000


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_zero_at_identity_and_growing_with_blur(options: dict[str, Any]) -> None:
    target = natural(1, 3, 64, 64)
    taps = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    kernel = (taps[:, None] * taps).expand(3, 1, 5, 5)
    values, output = [value(options, target, target)], target
    for _ in range(5):
        output = F.conv2d(F.pad(output, (2, 2, 2, 2), mode="circular"), kernel, groups=3)
        values.append(value(options, output, target))
    assert values[0] < 1e-6
    assert values == sorted(values)
    assert values[1] > 1e-5


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_autocast_and_half_precision_are_computed_in_float32(options: dict[str, Any]) -> None:
    target = natural(2, 3, 32, 32)
    output, loss = noisy(target, 0.1), build_loss(options)
    expected = loss(output, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(output, target), expected)
        assert loss(output.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_the_setting_of_fast_matrix_products_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    within: list[str] = []
    product = Tensor.__matmul__
    monkeypatch.setattr(
        Tensor, "__matmul__", lambda *pair: within.append(torch.get_float32_matmul_precision()) or product(*pair)
    )
    torch.set_float32_matmul_precision("high")
    try:
        value(PLAIN, natural(1, 1, 32, 32, seed=3), natural(1, 1, 32, 32))
        assert within == ["highest"] * 2
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


# Messages


@pytest.mark.parametrize("name", ["fielderrorloss", "spectrumerrorloss", "waveletloss"])
def test_small_fields_are_noticed_once_and_tiny_ones_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    loss = build_loss({"type": name})
    with caplog.at_level(logging.INFO, logger="traiNNer"):
        loss(torch.rand(1, 3, 32, 40), torch.rand(1, 3, 32, 40))
        assert caplog.messages == []
        for _ in range(3):
            loss(torch.rand(1, 3, 31, 40), torch.rand(1, 3, 31, 40))
    assert len(caplog.messages) == 1
    assert f"{name}: 40x31 px" in caplog.messages[0]
    with pytest.raises(ConfigError, match=rf"{name}: found 8x3 px; accepted: .* 4 px"):
        loss(torch.rand(1, 3, 3, 8), torch.rand(1, 3, 3, 8))
    with pytest.raises(ConfigError, match=rf"{name}: found a tensor of 3 axes; accepted: \(B, C, H, W\)"):
        loss(torch.rand(3, 8, 8), torch.rand(3, 8, 8))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_refuse_what_they_cannot_measure(name: str) -> None:
    metric = build_metric({"type": name, "crop_border": 3})
    assert metric.better == "lower"
    assert metric.minimum == 10
    assert "crop 3 px" in metric.describe()
    with pytest.raises(ConfigError, match=r"9x12 px is too small"):
        metric(torch.rand(1, 3, 12, 9), torch.rand(1, 3, 12, 9))
    with pytest.raises(ConfigError, match="cannot be compared"):
        metric(torch.rand(1, 3, 12, 12), torch.rand(1, 3, 12, 13))


# Figures of spectra


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("size", [(1, 1, 33, 48), (1, 5, 40, 64), (1, 3, 4, 4)], ids=str)
def test_metrics_take_any_fields(name: str, size: tuple[int, ...]) -> None:
    """Any number of channels, any range; 0 at identity; finite for what is constant."""
    target = 300 * natural(*size) - 150
    metric = build_metric({"type": name})
    assert metric(target, target) == 0
    flat = torch.zeros_like(target)
    assert metric(flat, flat) == 0
    assert all(math.isfinite(metric(*pair)) for pair in ((flat, target), (target, flat)))
    assert metric(1000 * noisy(target, 20), 1000 * target) >= 0


@pytest.mark.parametrize("channel_mode", ["mean", "each"])
def test_raps_distance_is_in_decibels(channel_mode: str) -> None:
    target = natural(1, 3, 40, 64)
    output = noisy(target, 0.05)
    metric = build_metric({"type": "raps_distance", "channel_mode": channel_mode, "quantization": 0.0})
    assert metric(2 * target, target) == pytest.approx(20 * math.log10(2), abs=1e-4)
    planes = [frames(field)[0, 0] for field in (output, target)]
    ours, theirs = (annuli(plane.mean(axis=0)[None] if channel_mode == "mean" else plane) for plane in planes)
    expected = np.sqrt(((10 * np.log10(ours / theirs)) ** 2).mean(axis=-1)).mean()
    assert metric(output, target) == pytest.approx(expected, rel=1e-5)
    assert metric(255 * output, 255 * target) == pytest.approx(metric(output, target), rel=1e-5)


def test_hf_share_is_relative_to_the_targets() -> None:
    target = natural(1, 3, 40, 65)

    def share(field: Tensor, cutoff: float) -> float:
        power = (np.abs(np.fft.fft2(field[0].double().numpy())) ** 2).sum(axis=0)
        power[0, 0] = 0
        radius = np.hypot(np.fft.fftfreq(40)[:, None], np.fft.fftfreq(65))
        return float(power[radius > cutoff].sum() / power.sum())

    for cutoff in (0.1, 0.25, 0.4):
        metric = build_metric({"type": "hf_share", "cutoff": cutoff, "quantization": 0.0})
        for output in (resized(target[..., :64], 2), noisy(target, 0.1)):
            truth = target[..., : output.shape[-1]]
            if truth.shape[-1] == 65:
                expected = abs(share(output, cutoff) / share(truth, cutoff) - 1)
                assert metric(output, truth) == pytest.approx(expected, rel=1e-5)
            else:
                assert 0.1 < metric(output, truth) <= 1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 71), (63, 65)])
def test_grid_energy_sees_stripes_and_checkerboards_of_single_pixels(height: int, width: int) -> None:
    target = natural(1, 3, height, width)
    output = F.avg_pool2d(F.pad(target, (1, 1, 1, 1), mode="reflect"), 3, 1)
    metric = build_metric({"type": "grid_energy"})
    assert metric(output, target) == 0
    y, x = torch.arange(height)[:, None] % 2, torch.arange(width) % 2
    for pattern in (y.expand(height, width), x.expand(height, width), (y + x) % 2, y * x):
        assert metric(output + 0.08 * (pattern - 0.5), target) > 5
    assert metric(output + 0.08 * sine(height // 5, width // 4, height, width).float(), target) < 1
    assert isinstance(metric, GridEnergy)


def test_grid_energy_is_not_hidden_by_edges_that_do_not_fit_together() -> None:
    """A slope from dark to bright has power at every frequency if its ends are taken to be neighbours."""
    slope = torch.linspace(0, 1, 64)
    target = ((0.5 * natural(1, 3, 64, 64) + slope[:, None] / 6 + slope / 3) * 255).round() / 255
    output = F.avg_pool2d(F.pad(target, (1, 1, 1, 1), mode="reflect"), 3, 1)
    assert build_metric({"type": "grid_energy"})(output + 0.02 * (torch.arange(64) % 2 - 0.5), target) > 10


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
