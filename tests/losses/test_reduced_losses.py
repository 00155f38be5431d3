"""Losses that judge reduced images, bands or blocks: against float64 NumPy versions of their definitions."""

from __future__ import annotations

import logging
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from traiNNer.losses import build_loss


def images(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    output, target = torch.rand(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return output, target


def value(name: str, output: torch.Tensor, target: torch.Tensor, **options: object) -> float:
    return float(build_loss({"type": name, **options})(output, target))


def test_averageloss_compares_block_means_also_of_cut_blocks() -> None:
    output, target = images(2, 3, 34, 41)
    difference = (output - target).numpy()
    blocks = [
        difference[..., top : top + 4, left : left + 4].mean(axis=(2, 3))
        for top in range(0, 34, 4)
        for left in range(0, 41, 4)
    ]
    assert value("averageloss", output, target) == pytest.approx(np.abs(blocks).mean(), rel=1e-9)
    assert value("averageloss", output, target, criterion="l2") == pytest.approx(np.square(blocks).mean(), rel=1e-9)


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def reducing(size: int, scale: float) -> np.ndarray:
    """The matrix that reduces an axis; weights outside the image are dropped and the others scaled to 1."""
    centres = (np.arange(int(size // scale)) + 0.5) * scale - 0.5
    weights = cubic((np.arange(size) - centres[:, None]) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [2, 4])
def test_bicubicloss_reduces_then_blurs(scale: int) -> None:
    output, target = images(1, 3, 32, 48)
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 0.5) ** 2)
    kernel /= kernel.sum()
    small = reducing(32, scale) @ (output - target).numpy() @ reducing(48, scale).T
    soft = correlate1d(correlate1d(small, kernel, axis=2, mode="mirror"), kernel, axis=3, mode="mirror")
    assert value("bicubicloss", output, target, scale=scale) == pytest.approx(np.abs(soft).mean(), rel=1e-5)


def enlarge(image: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Bilinear along one axis, pixel centres at halves, edges continued."""
    length = image.shape[axis]
    places = (np.arange(size) + 0.5) * length / size - 0.5
    return np.apply_along_axis(lambda line: np.interp(places, np.arange(length), line), axis, image)


def bands(image: np.ndarray, levels: int) -> list[np.ndarray]:
    found = []
    for _ in range(levels):
        rows, columns = image.shape[2] // 2, image.shape[3] // 2
        cut = image[:, :, : 2 * rows, : 2 * columns]
        coarser = cut.reshape(*image.shape[:2], rows, 2, columns, 2).mean(axis=(3, 5))
        found.append(image - enlarge(enlarge(coarser, 2, image.shape[2]), 3, image.shape[3]))
        image = coarser
    return found


def test_laplacianpyramidloss_sums_over_bands() -> None:
    output, target = images(2, 3, 36, 50)
    pairs = list(zip(bands(output.numpy(), 4), bands(target.numpy(), 4), strict=True))
    l1 = sum(np.abs(ours - theirs).mean() for ours, theirs in pairs)
    charbonnier = sum(np.sqrt((ours - theirs) ** 2 + 1e-12).mean() for ours, theirs in pairs)
    assert value("laplacianpyramidloss", output, target, criterion="l1") == pytest.approx(l1, rel=1e-9)
    assert value("laplacianpyramidloss", output, target) == pytest.approx(charbonnier, rel=1e-9)
    assert value("laplacianpyramidloss", target + 0.3, target, criterion="l1") == pytest.approx(0, abs=1e-12)


def test_laplacianpyramidloss_uses_the_levels_that_fit_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    output, target = images(1, 3, 33, 40)
    loss = build_loss({"type": "laplacianpyramidloss", "levels": 9, "criterion": "l1"})
    with caplog.at_level(logging.WARNING, logger="traiNNer"):
        first, second = float(loss(output, target)), float(loss(output, target))
    assert first == second == pytest.approx(value("laplacianpyramidloss", output, target, levels=5, criterion="l1"))
    assert [record.getMessage() for record in caplog.records] == [
        "laplacianpyramidloss: 5 of 9 levels fit into 40x33 px"
    ]


@pytest.mark.parametrize("scale", [2, 4])
def test_checkerboardloss_compares_all_pairs_within_blocks(scale: int) -> None:
    output, target = images(1, 3, 9, 14)

    def differences(image: np.ndarray) -> np.ndarray:
        rows, columns = image.shape[2] // scale * scale, image.shape[3] // scale * scale
        pixels = [image[:, :, row:rows:scale, column:columns:scale] for row in range(scale) for column in range(scale)]
        return np.stack([first - second for first, second in combinations(pixels, 2)])

    error = differences(output.numpy()) - differences(target.numpy())
    expected = {
        "l1": np.abs(error).mean(),
        "l2": np.square(error).mean(),
        "charbonnier": np.sqrt(error**2 + 1e-4).mean(),
    }
    for criterion, number in expected.items():
        found = value("checkerboardloss", output, target, scale=scale, criterion=criterion, eps=1e-4)
        assert found == pytest.approx(number, rel=1e-9)
    assert value("checkerboardloss", target + 0.3, target, criterion="l1") == pytest.approx(0, abs=1e-12)
