"""Wavelet loss: orthonormal filters, energies that add up, and the relative error of their logarithms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from traiNNer.losses import build_loss
from traiNNer.losses.wavelet_loss import Wavelet, analysis, band_energies

WAVELETS: list[Wavelet] = ["haar", "db2", "db4"]
MOMENTS = {"haar": 1, "db2": 2, "db4": 4}


def image(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_the_transform_is_orthonormal(wavelet: Wavelet) -> None:
    """Energy is kept, and so are scalar products; also where the filter is longer than the image."""
    for size in ((16, 24), (4, 4), (2, 6)):
        first, second = image(1, 1, *size), image(1, 1, *size, seed=1)
        ours, theirs = (torch.cat(analysis(each, wavelet), dim=1) for each in (first, second))
        assert ours.shape == (1, 4, size[0] // 2, size[1] // 2)
        assert float((ours * theirs).sum()) == pytest.approx(float((first * second).sum()), rel=1e-9)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_details_vanish_for_polynomials(wavelet: Wavelet) -> None:
    x = torch.arange(32, dtype=torch.float64)
    for power in range(5):
        _, details = analysis((x / 32).pow(power).expand(1, 1, 32, 32), wavelet)
        inner = details[..., :-4].abs().max()  # the last ones reach over the edge
        assert (inner < 1e-9) == (power < MOMENTS[wavelet])


def haar_energies(plane: np.ndarray, levels: int) -> list[float]:
    energies: list[float] = []
    for _ in range(levels):
        plane = np.pad(plane, [(0, side % 2) for side in plane.shape], mode="edge")
        a, b, c, d = plane[::2, ::2], plane[::2, 1::2], plane[1::2, ::2], plane[1::2, 1::2]
        bands = [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
        energies += [float((band**2).sum()) for band in bands]
        plane = (a + b + c + d) / 2
    return energies


@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
@pytest.mark.parametrize("channel_mode", ["mean", "each"])
def test_haar_is_the_definition(size: tuple[int, int], channel_mode: str) -> None:
    target = image(2, 3, *size)
    output = target + 0.1 * image(2, 3, *size, seed=1)
    expected = []
    for ours, theirs in zip(output.numpy(), target.numpy(), strict=True):
        planes = [each.mean(axis=0, keepdims=True) if channel_mode == "mean" else each for each in (ours, theirs)]
        p, t = (np.log(np.array([haar_energies(plane, 3) for plane in part]) + 1e-10) for part in planes)
        expected.append(((p - t) ** 2).mean() / ((t**2).mean() + 1e-10))
    loss = build_loss({"type": "waveletloss", "floor": 0.0, "channel_mode": channel_mode})
    assert float(loss(output, target)) == pytest.approx(np.mean(expected), rel=1e-9)


def test_a_time_axis_is_more_to_average_over() -> None:
    target = image(2, 3, 1, 32, 32)
    output = target + 0.1 * image(2, 3, 1, 32, 32, seed=1)
    over_channels = build_loss({"type": "waveletloss", "channel_mode": "each"})(output[:, :, 0], target[:, :, 0])
    torch.testing.assert_close(build_loss({"type": "waveletloss"})(output, target), over_channels)


@pytest.mark.parametrize(("side", "levels"), [(4, 1), (7, 1), (8, 2), (16, 3), (64, 5)])
def test_as_many_levels_as_leave_two_pixels(side: int, levels: int) -> None:
    target = image(1, 1, side, side)
    output = target + 0.1 * image(1, 1, side, side, seed=1)
    values = [float(build_loss({"type": "waveletloss", "levels": each})(output, target)) for each in range(1, 9)]
    assert values[levels - 1 :] == [values[levels - 1]] * (9 - levels)
    assert len(set(values)) == levels


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_bands_are_from_fine_to_coarse(wavelet: Wavelet) -> None:
    """Stripes along y of 2 px are in the first level's details along x, of 5 px mostly in the second's."""
    x = torch.arange(64, dtype=torch.float64)
    for level, period in ((0, 2), (1, 16 / 3)):
        stripes = torch.cos(2 * math.pi * (x + 0.5) / period + 0.1).expand(1, 64, 64)
        energies, counts = band_energies(stripes, 3, wavelet)
        assert int(energies.argmax()) == 3 * level
        assert counts.tolist() == [1024] * 3 + [256] * 3 + [64] * 3
