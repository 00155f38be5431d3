"""SSIM, MS-SSIM and MS-SSIM + L1 against scikit-image, and against their publications written in NumPy and SciPy."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

from traiNNer.losses import build_loss
from traiNNer.losses.local_similarity import gaussian_taps, luminance_and_structure
from traiNNer.losses.mssim_loss import positive, scales_that_fit
from traiNNer.utils.errors import ConfigError

Array = NDArray[np.float64]
LUMA = {"yiq": (0.299, 0.587, 0.114, 0), "ycbcr": (65.481, 128.553, 24.966, 16), "lhm": (0.2989, 0.587, 0.114, 0)}
SIZES = [(32, 32), (33, 47), (64, 40), (171, 163)]


def pair(height: int, width: int, images: int = 2, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """A float64 target with structure, and an output that leaves [0, 1] in places."""
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(images, 3, height // 4 + 1, width // 4 + 1, generator=generator, dtype=torch.float64)
    target = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return target + noise * torch.randn(target.shape, generator=generator, dtype=torch.float64), target


def luma(image: Array, space: str) -> Array:
    """(3, H, W) becomes (H, W)."""
    *weights, offset = LUMA[space]
    total = np.tensordot(weights, image, axes=1) + offset
    return total / 255 if space == "ycbcr" else total


def loss_of(name: str, output: torch.Tensor, target: torch.Tensor, **options: Any) -> float:
    return build_loss({"type": name, **options})(output=output, target=target).item()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("space", [None, *LUMA])
@pytest.mark.parametrize("border", [0, 3])
def test_ssim_is_that_of_scikit_image(size: tuple[int, int], space: str | None, border: int) -> None:
    output, target = pair(*size)
    inner = (..., slice(border, size[0] - border), slice(border, size[1] - border))
    scores = []
    for x, y in zip(output.numpy()[inner], target.numpy()[inner], strict=True):
        first, second, axis = (x, y, 0) if space is None else (luma(x, space), luma(y, space), None)
        settings: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        scores.append(structural_similarity(first, second, data_range=1.0, channel_axis=axis, **settings))
    options = {"test_y_channel": False} if space is None else {"color_space": space}
    ours = loss_of("ssimloss", output, target, crop_border=border, **options)
    assert ours == pytest.approx(1 - np.mean(scores), rel=1e-5)


def windowed(image: Array, sigma: float, radius: int, mode: str) -> Array:
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    return ndimage.correlate1d(ndimage.correlate1d(image, taps, axis=0, mode=mode), taps, axis=1, mode=mode)


def factors(x: Array, y: Array, sigma: float, radius: int, mode: str = "nearest") -> tuple[Array, Array]:
    """l and cs of two planes."""
    mean_x, mean_y, xx, yy, xy = (windowed(plane, sigma, radius, mode) for plane in (x, y, x * x, y * y, x * y))
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return luminance, (2 * (xy - mean_x * mean_y) + 9e-4) / (xx - mean_x**2 + yy - mean_y**2 + 9e-4)


def halved(plane: Array) -> Array:
    """Wang's imfilter(plane, ones(2)/4, 'symmetric') at every second place."""
    height, width = plane.shape
    plane = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="symmetric")
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4


def published_ms_ssim(x: Array, y: Array, luminance: bool, product: bool) -> float:
    """Of two planes; a scale is there if the window of 11 px is."""
    values = []
    while min(x.shape) >= 11 and len(values) < 5:
        l_map, cs_map = (part[5:-5, 5:-5] for part in factors(x, y, 1.5, 5))
        values.append((cs_map.mean(), (l_map * cs_map).mean()))
        x, y = halved(x), halved(y)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[: len(values)]
    if len(values) < 5 or not product:
        weights = weights / weights.sum()
    similarities = np.array([cs for cs, _ in values[:-1]] + [values[-1][1 if luminance else 0]])
    return float(np.prod(similarities**weights) if product else (similarities * weights).sum())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("luminance", [True, False])
@pytest.mark.parametrize("product", [True, False])
def test_ms_ssim_is_the_published_one(size: tuple[int, int], luminance: bool, product: bool) -> None:
    output, target = pair(*size)
    output = output * 0.8  # so that luminance matters
    scores = [
        published_ms_ssim(luma(x, "yiq"), luma(y, "yiq"), luminance, product)
        for x, y in zip(output.numpy(), target.numpy(), strict=True)
    ]
    ours = loss_of("mssimloss", output, target, include_luminance=luminance, is_prod=product)
    assert ours == pytest.approx(1 - np.mean(scores), rel=1e-5)


def published_ms_ssim_l1(x: Array, y: Array, alpha: float, sigmas: tuple[float, ...]) -> Array:
    radius = int(2 * sigmas[-1])
    parts = [factors(x, y, sigma, radius) for sigma in sigmas]
    similarity = parts[-1][0] * np.prod([cs for _, cs in parts], axis=0)
    return alpha * (1 - similarity) + (1 - alpha) * windowed(np.abs(x - y), sigmas[-1], radius, "nearest")


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
@pytest.mark.parametrize("alpha", [0.1, 0.84])
@pytest.mark.parametrize("sigmas", [(0.5, 1, 2, 4, 8), (1, 3)])
def test_ms_ssim_l1_is_the_published_one(size: tuple[int, int], alpha: float, sigmas: tuple[float, ...]) -> None:
    output, target = pair(*size)
    planes = zip(output.numpy().reshape(-1, *size), target.numpy().reshape(-1, *size), strict=True)
    expected = np.mean([published_ms_ssim_l1(x, y, alpha, sigmas) for x, y in planes])
    ours = loss_of("msssiml1loss", output, target, alpha=alpha, gaussian_sigmas=list(sigmas))
    assert ours == pytest.approx(expected, rel=1e-5)


def test_ms_ssim_l1_has_the_published_sigmas_and_follows_range_and_constants() -> None:
    output, target = pair(32, 32)
    plain = loss_of("msssiml1loss", output, target)
    assert plain == loss_of("msssiml1loss", output, target, gaussian_sigmas=[8.0, 0.5, 1.0, 2.0, 4.0])
    assert loss_of("msssiml1loss", output * 255, target * 255, data_range=255.0) == pytest.approx(plain, rel=1e-9)
    assert loss_of("msssiml1loss", output, target, k=[0.1, 0.3]) != pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize("name", ["ssimloss", "mssimloss"])
def test_downsampling_averages_blocks_of_large_images(name: str) -> None:
    output, target = pair(512, 520, images=1)
    small = [image.reshape(1, 3, 256, 2, 260, 2).mean(dim=(3, 5)) for image in (output, target)]
    large = loss_of(name, output, target, downsample=True)
    assert large == pytest.approx(loss_of(name, *small), rel=1e-9)
    assert large != pytest.approx(loss_of(name, output, target), rel=1e-2)


@pytest.mark.parametrize("name", ["ssimloss", "mssimloss", "msssiml1loss"])
def test_float32_agrees_with_float64_also_far_from_zero(name: str) -> None:
    """Without the means taken off first, a difference of squares near 1e4 has no digits left."""
    output, target = pair(48, 40)
    output, target = output + 100, target + 100
    expected = loss_of(name, output.float().double(), target.float().double())
    assert loss_of(name, output.float(), target.float()) == pytest.approx(expected, rel=1e-3)


def test_the_factors_stay_within_their_bounds_where_an_output_has_diverged() -> None:
    """Rounding makes variances of flat parts at 1e4 negative."""
    _, target = pair(96, 96)
    steps = torch.rand(2, 3, 3, 3, generator=torch.Generator().manual_seed(0)).repeat_interleave(32, 2)
    output = 1e4 * steps.repeat_interleave(32, 3)
    taps = gaussian_taps(1.5, 5, output)
    assert all(factor.abs().max() <= 1 + 1e-6 for factor in luminance_and_structure(output, target.float(), taps))


@pytest.mark.parametrize(("side", "scales"), [(10, 0), (11, 1), (20, 1), (21, 2), (32, 2), (128, 4), (161, 5)])
def test_as_many_scales_as_have_room(side: int, scales: int) -> None:
    assert scales_that_fit(side, 1000) == scales_that_fit(1000, side) == scales


def test_fewer_scales_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    loss = build_loss({"type": "mssimloss"})
    output, target = pair(32, 48)
    with caplog.at_level(logging.INFO, logger="traiNNer"):
        loss(output, target)
        loss(output, target)
    assert [record.getMessage() for record in caplog.records] == [
        "mssimloss: images of 48x32 px have room for 2 of its 5 scales; their weights now sum to 1"
    ]


def test_opposite_structure_still_pulls_towards_the_target() -> None:
    """The mean of cs is negative there, which has no fractional power."""
    _, target = pair(32, 32)
    output = (1 - target).requires_grad_()
    loss = build_loss({"type": "mssimloss"})
    value = loss(output, target)
    value.backward()
    assert output.grad is not None
    assert 0.9 < value < 1
    assert torch.isfinite(output.grad).all()
    assert (output.grad * (target - output)).sum() < 0


def test_the_continuation_is_smooth_positive_and_increasing() -> None:
    places = torch.tensor([-1.0, 0.0, 1e-3 - 1e-9, 1e-3, 1e-3 + 1e-9, 1.0], dtype=torch.float64, requires_grad=True)
    values = positive(places)
    slopes = torch.autograd.grad(values.sum(), places)[0]
    assert (values > 0).all()
    assert (values.diff() > 0).all()
    assert (slopes > 0).all()
    torch.testing.assert_close(slopes[2:], torch.ones_like(slopes[2:]), rtol=0, atol=1e-5)
    assert values[-1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "ssimloss", "crop_border": 11}, "ssimloss, crop_border 11: found images of 18x10 px"),
        ({"type": "mssimloss"}, "mssimloss: found images of 8x12 px"),
    ],
)
def test_images_without_room_for_the_window_are_refused(options: dict[str, Any], message: str) -> None:
    image = torch.zeros(1, 3, 32, 40) if "crop_border" in options else torch.zeros(1, 3, 12, 8)
    with pytest.raises(ConfigError, match=message):
        build_loss(options)(image, image)
