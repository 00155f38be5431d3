"""FFT and focal frequency loss: against float64 NumPy versions, and never in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from traiNNer.losses import build_loss


def images(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    output, target = torch.rand(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return output, target


def dft(image: np.ndarray) -> np.ndarray:
    """The 2-D DFT by its sum."""
    rows, columns = (np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in image.shape[-2:])
    return rows @ image @ columns.T


@pytest.mark.parametrize("size", [(2, 3, 16, 20), (1, 3, 33, 35)])
def test_fftloss_is_l1_of_both_parts(size: tuple[int, ...]) -> None:
    output, target = images(*size)
    difference = dft(output.numpy()) - dft(target.numpy())
    expected = (np.abs(difference.real).mean() + np.abs(difference.imag).mean()) / 2
    assert float(build_loss({"type": "fftloss"})(output, target)) == pytest.approx(expected, rel=1e-9)
    total = float(build_loss({"type": "fftloss", "reduction": "sum"})(output, target))
    assert total == pytest.approx(expected * 2 * output.numel(), rel=1e-9)


def focal(output: np.ndarray, target: np.ndarray, options: dict[str, Any]) -> float:
    """The published loss, patch by patch."""
    factor, alpha = options.get("patch_factor", 1), options.get("alpha", 1.0)
    height, width = output.shape[2] // factor, output.shape[3] // factor
    distances = []
    for row in range(factor):
        for column in range(factor):
            window = (..., slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
            ours, theirs = (dft(image[window]) / np.sqrt(height * width) for image in (output, target))
            if options.get("ave_spectrum", True):
                ours, theirs = ours.mean(axis=0, keepdims=True), theirs.mean(axis=0, keepdims=True)
            distances.append(np.abs(ours - theirs))
    distance = np.stack(distances)
    weights = distance**alpha
    if options.get("log_matrix"):
        weights = np.log(weights + 1)
    weights /= weights.max() if options.get("batch_matrix") else weights.max(axis=(-2, -1), keepdims=True)
    return float((weights * distance**2).mean())


OPTIONS: list[dict[str, Any]] = [
    {},
    {"ave_spectrum": False},
    {"alpha": 0.5},
    {"alpha": 0.0},
    {"patch_factor": 2, "ave_spectrum": False},
    {"log_matrix": True},
    {"batch_matrix": True, "ave_spectrum": False},
    {"patch_factor": 4, "batch_matrix": True, "log_matrix": True, "alpha": 2.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ffloss_is_fifty_times_the_published(options: dict[str, Any]) -> None:
    output, target = images(3, 3, 16, 24)
    found = float(build_loss({"type": "ffloss", **options})(output, target))
    assert found == pytest.approx(50 * focal(output.numpy(), target.numpy(), options), rel=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ffloss_says_whether_its_images_are_coupled(options: dict[str, Any]) -> None:
    output, target = images(2, 3, 16, 24)
    loss = build_loss({"type": "ffloss", **options})
    pieces = torch.stack([loss(output[index : index + 1], target[index : index + 1]) for index in range(2)]).mean()
    assert loss.batch_coupled != torch.isclose(pieces, loss(output, target), rtol=1e-9)


def test_ffloss_has_no_gradient_through_its_weights() -> None:
    output, target = images(1, 3, 16, 16)
    output.requires_grad_()
    (gradient,) = torch.autograd.grad(build_loss({"type": "ffloss", "ave_spectrum": False})(output, target), output)
    spectrum = torch.fft.fft2(output - target, norm="ortho")
    weights = (spectrum.abs() / spectrum.abs().amax(dim=(-2, -1), keepdim=True)).detach()
    (expected,) = torch.autograd.grad(50 * (weights * spectrum.abs().square()).mean(), output)
    torch.testing.assert_close(gradient, expected)


def test_ffloss_takes_sizes_that_its_patches_do_not_divide() -> None:
    output, target = images(1, 3, 35, 41)
    loss = build_loss({"type": "ffloss", "patch_factor": 4})
    assert loss(output, target) == loss(output[..., :32, :40], target[..., :32, :40])


@pytest.mark.parametrize("name", ["fftloss", "ffloss"])
def test_spectra_are_never_taken_in_half_precision(name: str) -> None:
    output, target = (image.float() for image in images(2, 3, 32, 32))
    loss = build_loss({"type": name})
    expected = loss(output, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(output, target), expected)
        assert loss(output.bfloat16(), target.bfloat16()).dtype == torch.float32
    assert torch.isclose(loss(output.half(), target.half()), expected, rtol=1e-2)
    torch.testing.assert_close(loss(output.double(), target.double()).float(), expected, rtol=1e-5, atol=0)
