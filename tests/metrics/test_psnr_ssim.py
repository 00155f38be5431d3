"""PSNR and SSIM against BasicSR's definitions, written again in NumPy from their description."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from traiNNer.metrics import build_metric, comparison
from traiNNer.utils.errors import ConfigError


def reference_levels(image: torch.Tensor, crop: int, luma: bool) -> np.ndarray:
    """(H, W, C) float64 levels as BasicSR's tensor2img, crop and to_y_channel make them."""
    levels = np.round(np.clip(image[0].numpy().transpose(1, 2, 0), 0, 1) * np.float32(255)).astype(np.uint8)
    if crop:
        levels = levels[crop:-crop, crop:-crop]
    if luma:
        unit = levels.astype(np.float32) / 255
        y = (unit @ np.array([65.481, 128.553, 24.966]) + 16.0) / 255
        levels = y.astype(np.float32)[..., None] * 255
    return levels.astype(np.float64)


def reference_psnr(output: np.ndarray, target: np.ndarray) -> float:
    return 20 * math.log10(255 / math.sqrt(np.mean((output - target) ** 2)))


def reference_ssim(output: np.ndarray, target: np.ndarray) -> float:
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2

    def blur(plane: np.ndarray) -> np.ndarray:
        height, width = plane.shape[0] - 10, plane.shape[1] - 10
        shifts = ((i, j) for i in range(11) for j in range(11))
        return sum(window[i, j] * plane[i : i + height, j : j + width] for i, j in shifts)  # type: ignore[return-value]

    values = []
    for x, y in zip(np.moveaxis(output, 2, 0), np.moveaxis(target, 2, 0), strict=True):
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        ratio = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
        values.append(ratio.mean())
    return float(np.mean(values))


def image_pair(height: int, width: int, noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A target with structure, and a result that leaves [0, 1] in places."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4 + 1, width // 4 + 1, generator=generator)
    target = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return target + noise * torch.randn(target.shape, generator=generator), target


REFERENCES = {"calculate_psnr": reference_psnr, "calculate_ssim": reference_ssim}


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(REFERENCES)),
    height=st.integers(20, 61),
    width=st.integers(20, 61),
    crop=st.integers(0, 4),
    luma=st.booleans(),
    noise=st.sampled_from([0.004, 0.05, 0.7]),
    seed=st.integers(0, 2**31),
)
def test_equals_basicsr(name: str, height: int, width: int, crop: int, luma: bool, noise: float, seed: int) -> None:
    output, target = image_pair(height, width, noise, seed)
    metric = build_metric({"type": name, "crop_border": crop, "test_y_channel": luma})
    expected = REFERENCES[name](reference_levels(output, crop, luma), reference_levels(target, crop, luma))
    assert metric(output, target) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", sorted(REFERENCES))
@pytest.mark.parametrize("luma", [False, True])
def test_large_images_are_compared_in_bands(name: str, luma: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    output, target = image_pair(61, 40, 0.05, 0)
    metric = build_metric({"type": name, "test_y_channel": luma})
    whole = metric(output, target)
    for pixels in (1, 280, 800):  # bands of 1, 7 and 20 rows
        monkeypatch.setattr(comparison, "_BAND", pixels)
        assert metric(output, target) == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("luma", [False, True])
def test_identical_images_stay_finite_and_are_the_best(luma: bool) -> None:
    _, target = image_pair(40, 24, 0, 0)
    psnr = build_metric({"type": "psnr", "test_y_channel": luma})
    nearly = (target * 255).round() / 255
    nearly[0, 2, 3, 3] += 1 / 255 if nearly[0, 2, 3, 3] < 0.5 else -1 / 255
    assert math.isfinite(psnr(target, target))
    assert psnr(target, target) == pytest.approx(psnr(nearly, target), abs=1e-6)
    assert build_metric({"type": "ssim", "test_y_channel": luma})(target, target) == pytest.approx(1, abs=1e-12)


def test_identical_images_have_the_documented_value() -> None:
    _, target = image_pair(40, 24, 0, 0)
    assert build_metric({"type": "psnr"})(target, target) == pytest.approx(
        48.1308 + 10 * math.log10(3 * 40 * 24), abs=1e-4
    )


def test_not_a_number_stays_visible() -> None:
    output, target = image_pair(24, 24, 0.1, 0)
    output[0, 0, 12, 12] = math.nan
    assert math.isnan(build_metric({"type": "psnr"})(output, target))
    assert math.isnan(build_metric({"type": "ssim"})(output, target))


def test_direction_and_description() -> None:
    metric = build_metric({"type": "psnr", "crop_border": 4, "test_y_channel": True})
    assert metric.better == "higher"
    assert all(part in metric.describe() for part in ("PSNR", "Y channel", "crop 4 px", "16..235"))
    assert "RGB" in build_metric({"type": "ssim"}).describe()
    assert build_metric({"type": "psnr", "better": "lower"}).better == "lower"


def test_images_that_cannot_be_compared_are_named_by_size() -> None:
    output, target = image_pair(20, 20, 0.1, 0)
    with pytest.raises(ConfigError, match=r"20x19 px cannot be compared with a target of 20x20 px"):
        build_metric({"type": "psnr"})(output[:, :, 1:], target)
    with pytest.raises(ConfigError, match=r"20x20 px is too small.*11x11 px must remain within crop_border 5"):
        build_metric({"type": "ssim", "crop_border": 5})(output, target)


def test_mistakes_in_options_are_messages() -> None:
    with pytest.raises(ConfigError, match=r"did you mean psnr"):
        build_metric({"type": "pnsr"})
    with pytest.raises(ConfigError, match=r"crop_borders: unknown key.*did you mean crop_border\?"):
        build_metric({"type": "psnr", "crop_borders": 1})
    with pytest.raises(ConfigError, match=r"crop_border"):
        build_metric({"type": "psnr", "crop_border": -1})
