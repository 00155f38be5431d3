"""Power spectra of fields in bins of their wavenumber, with an exact and cheap gradient.

The last axes of a field are its space: H, W, or D, H, W of a volume. Wavenumbers are cycles per shortest side, so that
a sine lies in the bin of its own wavelength in a field of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_fft: Any = torch.fft
"""Declares no types."""

_LARGEST_MATRIX = 2**23
"""Elements of a bin matrix, 32 MiB of float32 and 64 MiB of float64: up to 320 x 320 px. The bins of larger fields are
summed by index, on CUDA in no certain order unless torch's deterministic algorithms are on."""


@dataclass(frozen=True)
class Bins:
    """Which of the J coefficients of a real field's half spectrum are in which of K bins."""

    index: tuple[Tensor, ...]
    """(J,) each: a coefficient's bin, K if it is in none. Anisotropic bins have one for every axis."""
    multiplicity: Tensor
    """(J,): how many coefficients of the full spectrum one of the half stands for, 1 or 2."""
    area: Tensor
    """(K,): extent of the bin in the space of wavenumbers, such as pi (k2^2 - k1^2)."""
    scale: Tensor
    """(K,): area / coefficients of the full spectrum in the bin, which makes mean times area of a sum."""
    matrix: Tensor | None
    """(J, K) of 0, 1 and 2: power times this is summed over each bin. None where it would be too large."""


@lru_cache(maxsize=8)
def bins(size: tuple[int, ...], *, anisotropic: bool, device: torch.device, dtype: torch.dtype) -> Bins:
    """The bins of fields of this size: edges 0.5, 1.5, ..., as many as half the shortest side has px.

    Args:
        size: (H, W) or (D, H, W), at least 2 each.
        anisotropic: bins of |kx|, of |ky| and of |kz| each in place of bins of sqrt(kx^2 + ky^2 + kz^2).
        device: where the fields are.
        dtype: float32 or float64.
    """
    with torch.inference_mode(mode=False):  # what is made there cannot be used in training later
        axes = wavenumbers(size)
        half = (*size[:-1], size[-1] // 2 + 1)
        radii = [axis.abs() for axis in axes] if anisotropic else [radius(axes)]
        each, count = min(size) // 2, min(size) // 2 * len(radii)
        index: list[Tensor] = []
        for place, distance in enumerate(radii):
            number = (distance + 0.5 + 1e-9).floor().long() - 1  # [k - 0.5, k + 0.5), the first bin is that of k = 1
            outside = (number < 0) | (number >= each)
            index.append((number + place * each).masked_fill(outside, count).expand(half).flatten())
        copies = multiplicity(size[-1]).expand(half).flatten()
        members = _summed(copies, index, count)
        area = _strips(size, count) if anisotropic else _shells(len(size), count)
        return Bins(
            index=tuple(places.to(device) for places in index),
            multiplicity=copies.to(device, dtype),
            area=area.to(device, dtype),
            scale=(area / members).to(device, dtype),
            matrix=_matrix(index, copies.to(dtype), count, device),
        )


def wavenumbers(size: tuple[int, ...]) -> list[Tensor]:
    """Cycles per shortest side of every coefficient along each axis of the half spectrum, float64.

    For (H, W) they have the shapes (H, 1) and (1, W // 2 + 1).
    """
    found: list[Tensor] = []
    for axis, length in enumerate(size):
        frequency = _fft.rfftfreq if axis == len(size) - 1 else _fft.fftfreq
        cycles = frequency(length, dtype=torch.float64) * min(size)
        found.append(cycles.reshape([-1 if place == axis else 1 for place in range(len(size))]))
    return found


def radius(axes: list[Tensor]) -> Tensor:
    """Distance from the origin for coordinates that broadcast to each other."""
    return reduce(torch.add, (axis.square() for axis in axes)).sqrt()


def multiplicity(width: int) -> Tensor:
    """2 for the columns that a real transform leaves out as conjugates, 1 for the zeroth and for Nyquist's; float64."""
    found = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64)
    found[0] = 1
    if width % 2 == 0:
        found[-1] = 1
    return found


def _shells(axes: int, count: int) -> Tensor:
    """Areas of annuli, or volumes of shells, between the edges."""
    edges = torch.arange(count + 1, dtype=torch.float64) + 0.5
    ball = math.pi * edges**2 if axes == 2 else 4 / 3 * math.pi * edges**3
    return ball.diff()


def _strips(size: tuple[int, ...], count: int) -> Tensor:
    """k in [k1, k2) on both sides of 0, over the extent of the spectrum along the other axes."""
    return torch.full((count,), 2.0 * min(size) ** (len(size) - 1), dtype=torch.float64)


def _summed(power: Tensor, index: list[Tensor] | tuple[Tensor, ...], count: int) -> Tensor:
    """(..., J) summed by index, (..., K)."""
    total = power.new_zeros(*power.shape[:-1], count + 1)
    for places in index:
        total.index_add_(-1, places, power)
    return total[..., :-1]


def _matrix(index: list[Tensor], multiplicity: Tensor, count: int, device: torch.device) -> Tensor | None:
    if multiplicity.numel() * count > _LARGEST_MATRIX:
        return None
    found = multiplicity.new_zeros(multiplicity.numel(), count + 1)
    for places in index:
        found.scatter_(1, places[:, None], multiplicity[:, None])
    return found[:, :-1].contiguous().to(device)


@contextmanager
def _full_precision_of_each_backend() -> Generator[None]:
    declared: Any = torch.backends
    backends = [declared.cuda.matmul, declared.mkldnn.matmul]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def _full_precision() -> Generator[None]:
    """float32 products of matrices in float32, whatever `fast_matmul` says; the setting is restored."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # a caller has set one backend only
        with _full_precision_of_each_backend():
            yield
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def half_power(field: Tensor) -> Tensor:
    """|F|^2 of fields without their means, times the coefficients of the full spectrum that each stands for.

    (..., H, W) becomes (..., H, W // 2 + 1), in float32 or float64; the sum over it is that over the full spectrum.
    """
    field = field if field.dtype == torch.float64 else field.float()
    spectrum: Tensor = _fft.rfft2(field - field.mean(dim=(-2, -1), keepdim=True))
    return (spectrum * spectrum.conj()).real * multiplicity(field.shape[-1]).to(field)


class _BinnedPower(torch.autograd.Function):
    """Autograd's own gradient of a real transform is a complex one of the full size, several times as long."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, plan: Bins, axes: int) -> Tensor:
        spectrum: Tensor = _fft.rfftn(field, dim=tuple(range(-axes, 0)))
        power = (spectrum * spectrum.conj()).real.flatten(-axes)
        if plan.matrix is None:
            summed = _summed(power * plan.multiplicity, plan.index, len(plan.area))
        else:
            with _full_precision():
                summed = power @ plan.matrix
        ctx.save_for_backward(spectrum)
        ctx.plan, ctx.size = plan, field.shape[-axes:]
        return summed * plan.scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (spectrum,) = ctx.saved_tensors
        of_sum = torch.nn.functional.pad(gradients[0] * (2 * ctx.plan.scale), (0, 1))
        of_power = torch.stack([of_sum.index_select(-1, places) for places in ctx.plan.index]).sum(dim=0)
        product = spectrum * of_power.reshape(spectrum.shape)
        axes = tuple(range(-len(ctx.size), 0))
        return _fft.irfftn(product, s=ctx.size, dim=axes, norm="forward"), None, None


def binned_power(field: Tensor, *, axes: int = 2, anisotropic: bool = False) -> tuple[Tensor, Bins]:
    """Mean power |F|^2 in each bin times the bin's area, F the plain DFT of the last axes.

    Args:
        field: real, (..., H, W), or (..., D, H, W) with `axes` 3. Half precision is widened; autocast has no effect.
        axes: of space, 2 or 3.
        anisotropic: see `bins`.

    Returns:
        (..., K), differentiable once, and the bins.
    """
    field = field if field.dtype == torch.float64 else field.float()
    size = tuple(field.shape[-axes:])
    plan = bins(size, anisotropic=anisotropic, device=field.device, dtype=field.dtype)
    with torch.autocast(field.device.type, enabled=False):
        # No bin holds the mean; without it, float32 resolves the small coefficients that it would drown.
        mean = field.detach().mean(dim=tuple(range(-axes, 0)), keepdim=True)
        found: Any = _BinnedPower.apply(field - mean, plan, axes)
    return found, plan
