"""LQ made from GT, against MATLAB's imresize written out as a matrix in float64."""

from __future__ import annotations

import numpy as np
import pytest

from traiNNer.data import check_datasets
from traiNNer.data.downscale import downscale
from traiNNer.utils.images import read_image, write_image

from .pairs import Make


def imresize_matrix(size: int, scale: int) -> np.ndarray:
    """(size / scale, size): the weights of MATLAB's bicubic imresize with antialiasing along one axis."""
    small = size // scale
    matrix = np.zeros((small, size))
    for row in range(small):
        centre = (row + 0.5) * scale - 0.5
        for tap in range(int(np.floor(centre - 2 * scale)), int(np.ceil(centre + 2 * scale)) + 1):
            x = abs(tap - centre) / scale
            inner = 1.5 * x**3 - 2.5 * x**2 + 1
            outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
            place = tap % (2 * size)
            matrix[row, min(place, 2 * size - 1 - place)] += inner if x <= 1 else outer if x < 2 else 0.0
        matrix[row] /= matrix[row].sum()
    return matrix


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_equals_imresize_up_to_the_borders(scale: int, kind: type[np.unsignedinteger]) -> None:
    height, width, white = 12 * scale, 9 * scale, np.iinfo(kind).max
    gt = np.random.default_rng(scale).integers(0, white + 1, (height + scale - 1, width, 3)).astype(kind)
    lq = downscale(gt, scale, top=0, left=0, height=12, width=9)
    vertical, horizontal = imresize_matrix(height, scale), imresize_matrix(width, scale)
    expected = np.einsum("ij,jkc,lk->ilc", vertical, gt[:height].astype(float), horizontal).clip(0, white)
    assert lq.dtype == kind
    assert np.abs(lq - expected).max() <= 0.5 + 1e-3 * white / 255


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_window_is_a_part_of_the_whole(scale: int) -> None:
    draw = np.random.default_rng(0)
    gt = draw.integers(0, 256, (9 * scale + 1, 11 * scale, 3), dtype=np.uint8)
    whole = downscale(gt, scale, top=0, left=0, height=9, width=11)
    for _ in range(60):
        height, width = (int(side) for side in draw.integers(1, 10, 2))
        top, left = int(draw.integers(10 - height)), int(draw.integers(12 - width))
        window = downscale(gt, scale, top=top, left=left, height=height, width=width)
        assert np.array_equal(window, whole[top : top + height, left : left + width])


def test_images_smaller_than_the_kernel() -> None:
    gt = np.full((4, 8, 3), 77, np.uint8)
    assert (downscale(gt, 4, top=0, left=0, height=1, width=2) == 77).all()


def test_training_crops_are_parts_of_the_validation_images(make: Make, folder: str) -> None:
    gt = np.random.default_rng(0).integers(0, 256, (25, 31, 3), dtype=np.uint8)
    write_image(f"{folder}/only/x.png", gt)
    options = {"dataroot_gt": f"{folder}/only", "dataroot_lq": None}
    train, val = make(**options, use_hflip=False, use_rot=False), make(**options, phase="val")
    assert check_datasets({"train": train, "val": val}) == []
    whole = val.stored_sample(0, np.random.default_rng(0))
    assert whole["lq"].shape == (3, 12, 15)
    assert np.array_equal(whole["gt"].numpy().transpose(1, 2, 0), read_image(f"{folder}/only/x.png")[:24, :30])
    windows = whole["lq"].unfold(1, 4, 1).unfold(2, 4, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 4, 4)
    for seed in range(20):
        crop = train.stored_sample(0, np.random.default_rng(seed))["lq"]
        assert (windows == crop).flatten(1).all(1).any()
