"""Field error, spectrum error and what they share with other relative errors: one definition for losses and metrics.

Fields are (B, C, H, W) or (B, T, C, H, W), or with `axes` 3 (B, C, D, H, W) or (B, T, C, D, H, W), of any range of
values. Half precision is widened to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, float64

from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.power_spectrum import binned_power

SMALLEST, SMALL = 4, 32
"""Sides of a field, px: what is needed, and below what a spectrum has too few bins to say much."""

LEAST = 40.0
"""Denominator of the spectrum error with a floor, at least. Nearly all tiles of photographs have more; images with a
contrast of a few percent have less, as little as 10, and gradients of 160 times L1's without it."""

_TINY = 1e-10

ChannelMode = Annotated[
    Literal["mean", "each"], Field(description="spectra of the mean over channels, or of each channel")
]
Anisotropic = Annotated[bool, Field(description="spectra along x and along y instead of a radial one")]
Volume = Annotated[bool, Field(description="fields are volumes, (B, C, D, H, W) or (B, T, C, D, H, W)")]
Quantization = Annotated[
    float,
    Field(
        ge=0, description="step of the values' levels, 1/255 for 8 bits in [0, 1]; its noise is the floor; 0 for none"
    ),
]


def check_fields(name: str, output: Tensor, target: Tensor, *, axes: int = 2) -> None:
    """Refuse what has other axes, a side below `SMALLEST`, or differs in shape.

    Args:
        name: of the loss or metric, for messages.
        output: fields.
        target: fields to compare them with.
        axes: of space, 2 or 3.

    Raises:
        ConfigError: names loss or metric, and shapes.
    """
    if output.shape != target.shape:
        shapes = f"an output of {tuple(output.shape)} cannot be compared with a target of {tuple(target.shape)}"
        raise ConfigError(Problem(message=f"{name}: {shapes}; accepted: equal shapes"))
    size = output.shape[-axes:]
    if output.ndim not in (axes + 2, axes + 3) or min(size) < SMALLEST:
        layout = "(B, C, H, W) or (B, T, C, H, W)" if axes == 2 else "(B, C, D, H, W) or (B, T, C, D, H, W)"
        found = size_text(size) if output.ndim >= axes + 2 else f"a tensor of {output.ndim} axes"
        accepted = f"{layout}, at least {SMALLEST} px on each side"
        raise ConfigError(Problem(message=f"{name}: found {found}; accepted: {accepted}"))


def field_error(output: Tensor, target: Tensor, *, axes: int = 2) -> Tensor:
    """Mean over frames and channels of mean((output - target)^2) / (mean(target^2) + 1e-8), means over space."""
    output, target = _widened(output), _widened(target.detach())
    space = tuple(range(-axes, 0))
    return ((output - target).square().mean(dim=space) / (target.square().mean(dim=space) + 1e-8)).mean()


def spectrum_error(
    output: Tensor,
    target: Tensor,
    *,
    channel_mode: ChannelMode = "mean",
    anisotropic: bool = False,
    axes: int = 2,
    floor: float = 0.0,
    quantization: float = 0.0,
) -> Tensor:
    """Relative error of the logarithm of binned power, a scalar; see `binned_power` and `log_relative_error`.

    Args:
        output: fields.
        target: fields of the same shape; no gradient reaches them.
        channel_mode: spectra of the mean over channels, or of each channel.
        anisotropic: bins of |kx| and of |ky| instead of the radius.
        axes: of space, 2 or 3.
        floor: see `log_relative_error`.
        quantization: step of the values' levels. The power of its rounding, step^2 / 12 at each point, is part of the
            floor; without a floor there is none.
    """
    averaged = output.shape[-axes - 1] if channel_mode == "mean" else 1
    output, target = (planes(field, channel_mode, axes=axes) for field in (output, target.detach()))
    ours, plan = binned_power(output, axes=axes, anisotropic=anisotropic)
    theirs, _ = binned_power(target, axes=axes, anisotropic=anisotropic)
    noise = plan.area * (output.shape[-axes:].numel() * quantization**2 / 12 / averaged)
    return log_relative_error(ours, theirs, floor=floor, noise=noise, least=LEAST)


def planes(field: Tensor, channel_mode: ChannelMode, *, axes: int = 2) -> Tensor:
    """What spectra are taken of: the channels, or their mean.

    No bin and no band holds a channel's mean. It is removed before the sum over channels, in which float32 would drown
    what is small beside it.
    """
    field = _widened(field)
    if channel_mode == "each":
        return field
    if field.shape[-axes - 1] > 1:
        field = field - field.detach().mean(dim=tuple(range(-axes, 0)), keepdim=True)
    return field.mean(dim=-axes - 1)


def log_relative_error(
    output: Tensor, target: Tensor, *, floor: float = 0.0, noise: Tensor | float = 0.0, least: float = 0.0
) -> Tensor:
    """Mean over samples of mean((log(p + phi) - log(t + phi))^2) / (mean(log(t + phi)^2) + psi).

    Without a floor phi and psi are 1e-10. With one phi is 1e-10 + floor t + noise: for p = |F|^2 the slope of
    log(p + phi) over F is at most 1 / sqrt(phi), where without it an output of hardly any power has a huge gradient.
    psi is 10 then and the denominator at least `least`, which matters where t is about 1 in its unit, the logarithm
    about 0; spectra of photographs have 50 to 120.

    Args:
        output: p, power of bands or bins, (B, ...); the inner means are over all axes but the first.
        target: t, of the same shape.
        floor: fraction of the target's own power.
        noise: power of the target's rounding, part of the floor if there is one.
        least: the denominator's smallest value if there is a floor.
    """
    phi, psi = (target * floor + noise + _TINY, 10.0) if floor > 0 else (_TINY, _TINY)
    inner, true = tuple(range(1, target.ndim)), target + phi
    error = ((output + phi) / true).log().square().mean(dim=inner)  # a difference of logarithms would lose digits
    scale = true.log().square().mean(dim=inner) + psi
    return (error / (scale.clamp(min=least) if floor > 0 else scale)).mean()


def size_text(size: Sequence[int]) -> str:
    """(H, W) or (D, H, W) as `W x H px`, the way images' sizes are written."""
    return f"{'x'.join(map(str, reversed(size)))} px"


def _widened(field: Tensor) -> Tensor:
    return field if field.dtype == float64 else field.float()
