"""Huber, PSNR, TV, Sobel edges, gradient variance, NCC and cosine against their formulas in NumPy and SciPy."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from traiNNer.losses import build_loss
from traiNNer.losses.criteria import CriterionName, criterion
from traiNNer.utils.errors import ConfigError

Array = NDArray[np.float64]
SIZES = [(32, 32), (33, 47)]


def pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 images, the output with values outside of [0, 1]."""
    generator = torch.Generator().manual_seed(height)
    target = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
    return target + 0.3 * torch.randn(target.shape, generator=generator, dtype=torch.float64), target


def huber(x: Array, y: Array, delta: float) -> Array:
    size = np.abs(x - y)
    return np.where(size < delta, size**2 / 2, delta * (size - delta / 2))


def matlab_luma(image: Array) -> Array:
    return (np.einsum("c,bchw->bhw", [65.481, 128.553, 24.966], image) + 16)[:, None] / 255


def psnr(x: Array, y: Array) -> float:
    """Its negative; 1e-8 counts where errors are small."""
    errors = ((x - y) ** 2).mean(axis=(1, 2, 3)) + 1e-8
    return float(-(20 * np.log10(1 / np.sqrt(errors))).mean())


def total_variation(image: Array, eps: float) -> Array:
    across = np.diff(image, axis=3, append=image[..., -1:])
    down = np.diff(image, axis=2, append=image[:, :, -1:])
    return np.sqrt(across**2 + down**2 + eps)


def sobel(image: Array, weights: tuple[float, float, float]) -> tuple[Array, Array]:
    gray = np.einsum("c,bchw->bhw", weights, image)
    across, down = (np.stack([ndimage.sobel(each, axis=axis, mode="constant") for each in gray]) for axis in (1, 0))
    return across, down


def sobel_edges(x: Array, y: Array) -> float:
    maps = zip(sobel(x, (0.299, 0.587, 0.114)), sobel(y, (0.299, 0.587, 0.114)), strict=True)
    return float(np.mean([((a / 4 - b / 4) ** 2).mean() for a, b in maps]))


def gradient_variance(x: Array, y: Array, n: int) -> float:
    """With l2, as published: patch by patch, the sum of squares divided by n^2 - 1."""
    total = 0.0
    for a, b in zip(sobel(x, (0.2989, 0.587, 0.114)), sobel(y, (0.2989, 0.587, 0.114)), strict=True):
        places = [(i, j) for i in range(0, a.shape[1] - n + 1, n) for j in range(0, a.shape[2] - n + 1, n)]
        variances = [
            [np.var(image[i : i + n, j : j + n], ddof=1) for image in maps for i, j in places] for maps in (a, b)
        ]
        total += float(((np.array(variances[0]) - np.array(variances[1])) ** 2).mean())
    return total


def correlation(x: Array, y: Array) -> float:
    planes = zip(x.reshape(6, -1), y.reshape(6, -1), strict=True)
    return float(np.mean([(1 - np.corrcoef(a, b)[0, 1]) / 2 for a, b in planes]))


def cosine(x: Array, y: Array) -> float:
    cosines = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return float((1 - cosines).mean())


FORMULAS: list[tuple[dict[str, Any], Any]] = [
    ({"type": "huberloss"}, lambda x, y: huber(x, y, 1.0).mean()),
    ({"type": "huberloss", "delta": 0.2}, lambda x, y: huber(x, y, 0.2).mean()),
    ({"type": "huberloss", "reduction": "sum"}, lambda x, y: huber(x, y, 1.0).sum()),
    ({"type": "psnrloss"}, psnr),
    ({"type": "psnrloss", "to_y": True}, lambda x, y: psnr(matlab_luma(x), matlab_luma(y))),
    ({"type": "tvloss"}, lambda x, y: total_variation(x, 1e-6).mean()),
    ({"type": "tvloss", "eps": 0.1, "reduction": "sum"}, lambda x, y: total_variation(x, 0.1).sum()),
    ({"type": "sobeledgeloss"}, sobel_edges),
    ({"type": "gradientvarianceloss", "criterion": "l2"}, lambda x, y: gradient_variance(x, y, 16)),
    ({"type": "gradientvarianceloss", "criterion": "l2", "patch_size": 5}, lambda x, y: gradient_variance(x, y, 5)),
    ({"type": "nccloss"}, correlation),
    ({"type": "cosimloss"}, lambda x, y: 5 * cosine(x, y)),
    ({"type": "cosimloss", "cosim_lambda": 0.5}, lambda x, y: 0.5 * cosine(x, y)),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("options", "formula"), FORMULAS, ids=[options["type"] for options, _ in FORMULAS])
def test_the_value_is_the_formula_s(options: dict[str, Any], formula: Any, size: tuple[int, int]) -> None:
    output, target = pair(*size)
    inputs = {"output": output} if options["type"] == "tvloss" else {"output": output, "target": target}
    ours = build_loss(options)(**inputs).item()
    assert ours == pytest.approx(formula(output.numpy(), target.numpy()), rel=1e-5)


def test_psnr_has_a_value_where_there_is_no_error() -> None:
    image = torch.rand(2, 3, 16, 16)
    assert build_loss({"type": "psnrloss"})(image, image).item() == pytest.approx(-80, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", np.abs),
        ("l2", lambda d: d**2),
        ("mse", lambda d: d**2),
        ("charbonnier", lambda d: np.sqrt(d**2 + 1e-12)),
        ("huber", lambda d: np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5)),
        ("chc", lambda d: np.clip(np.sqrt(d**2 + 1e-12), 1 / 255, 254 / 255)),
    ],
)
def test_criteria(name: CriterionName, expected: Any) -> None:
    output, target = (2 * image for image in pair(32, 32))
    value = criterion(name)(output, target)
    assert value.shape == ()
    assert value.item() == pytest.approx(expected((output - target).numpy()).mean(), rel=1e-9)


def test_every_criterion_that_the_schema_accepts_is_there() -> None:
    output, target = (image / 100 for image in pair(32, 32))
    values = {
        name: build_loss({"type": "gradientvarianceloss", "criterion": name})(output, target).item()
        for name in get_args(get_args(CriterionName)[0])
    }
    assert values["mse"] == values["l2"]
    assert len(set(values.values())) == 5


def test_correlation_does_not_see_brightness_and_contrast() -> None:
    _, target = pair(32, 32)
    loss = build_loss({"type": "nccloss"})
    assert loss(0.5 * target + 0.2, target) == pytest.approx(0, abs=1e-6)
    assert loss(1 - target, target) == pytest.approx(1, abs=1e-6)


def test_cosine_does_not_see_brightness_and_is_gentle_near_black() -> None:
    _, target = pair(32, 32)
    target = target + 0.1
    loss = build_loss({"type": "cosimloss"})
    assert loss(0.5 * target, target) == pytest.approx(0, abs=1e-12)
    black = torch.zeros(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(black, target[:1]), black)
    assert 0 < gradient.abs().max() * 32 * 32 <= 5 * 255


def test_patches_larger_than_the_image_are_refused() -> None:
    image = torch.zeros(1, 3, 32, 40)
    with pytest.raises(ConfigError, match="found images of 40x32 px; accepted: at least patch_size, 33 px"):
        build_loss({"type": "gradientvarianceloss", "patch_size": 33})(image, image)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"type": "huberloss", "delta": 0.0}, "delta"),
        ({"type": "huberloss", "reduction": "none"}, "reduction"),
        ({"type": "psnrloss", "reduction": "sum"}, "reduction"),
        ({"type": "ssimloss", "color_space": "rgb"}, "color_space"),
        ({"type": "ssimloss", "crop_border": -1}, "crop_border"),
        ({"type": "ssimloss", "channels": 1}, "channels"),
        ({"type": "mssimloss", "is_prod": 1}, "is_prod"),
        ({"type": "msssiml1loss", "alpha": 1.5}, "alpha"),
        ({"type": "msssiml1loss", "gaussian_sigmas": []}, "gaussian_sigmas"),
        ({"type": "msssiml1loss", "gaussian_sigmas": [1.0, 0.0]}, "gaussian_sigmas"),
        ({"type": "msssiml1loss", "data_range": 0.0}, "data_range"),
        ({"type": "msssiml1loss", "k": [0.01]}, "k"),
        ({"type": "gradientvarianceloss", "patch_size": 1}, "patch_size"),
        ({"type": "gradientvarianceloss", "criterion": "l3"}, "criterion"),
        ({"type": "tvloss", "eps": 0.0}, "eps"),
        ({"type": "cosimloss", "cosim_lambda": -1.0}, "cosim_lambda"),
    ],
)
def test_bad_parameters_are_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        build_loss(options)
