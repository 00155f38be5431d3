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
    output, target = _widened(output), _widened(target)
    space = tuple(range(-axes, 0))
    return ((output - target).square().mean(dim=space) / (target.square().mean(dim=space) + 1e-8)).mean()


def spectrum_error(
    output: Tensor,
    target: Tensor,
    *,
    channel_mode: Literal["mean", "each"] = "mean",
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
    if channel_mode == "mean":
        output, target = (_widened(field).mean(dim=-axes - 1) for field in (output, target))
    ours, plan = binned_power(output, axes=axes, anisotropic=anisotropic)
    theirs, _ = binned_power(target.detach(), axes=axes, anisotropic=anisotropic)
    points = output.shape[-axes:].numel()
    return log_relative_error(ours, theirs, floor=floor, noise=plan.area * (points * quantization**2 / 12 / averaged))


def log_relative_error(output: Tensor, target: Tensor, *, floor: float = 0.0, noise: Tensor | float = 0.0) -> Tensor:
    """Mean over samples of mean((log(p + phi) - log(t + phi))^2) / (mean(log(t + phi)^2) + psi).

    Without a floor phi and psi are 1e-10. With one phi is 1e-10 + floor t + noise: for p = |F|^2 the slope of
    log(p + phi) over F is at most 1 / sqrt(phi), where without it an output of hardly any power has a huge gradient.
    psi is 10 then, which matters where t is about 1 in its unit, the logarithm about 0; photographs have 50 to 120.

    Args:
        output: p, power of bands or bins, (B, ...); the inner means are over all axes but the first.
        target: t, of the same shape.
        floor: fraction of the target's own power.
        noise: power of the target's rounding, part of the floor if there is one.
    """
    phi, psi = (target * floor + noise + _TINY, 10.0) if floor > 0 else (_TINY, _TINY)
    inner, true = tuple(range(1, target.ndim)), target + phi
    error = ((output + phi) / true).log().square().mean(dim=inner)  # a difference of logarithms would lose digits
    return (error / (true.log().square().mean(dim=inner) + psi)).mean()


def size_text(size: Sequence[int]) -> str:
    """(H, W) or (D, H, W) as `W x H px`, the way images' sizes are written."""
    return f"{'x'.join(map(str, reversed(size)))} px"


def _widened(field: Tensor) -> Tensor:
    return field if field.dtype == float64 else field.float()
