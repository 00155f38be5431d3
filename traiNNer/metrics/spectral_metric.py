"""Relative errors of fields and of their power spectra, and figures of what a spectrum lacks or has too much.

Unlike PSNR and its kind these take values of any range and any number of channels, as they are: nothing is clamped or
rounded to 8-bit levels. Computed in float64.

A flat target has no spectrum of its own: `raps_distance`, `hf_share` and `grid_energy` give it that of rounding to
levels; `spectrum_error` and `field_error` keep their plain definitions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.metrics.comparison import CropBorder, Improves, cropped
from traiNNer.utils.power_spectrum import binned_power, half_power, multiplicity, radius, wavenumbers
from traiNNer.utils.registry import METRICS
from traiNNer.utils.relative_errors import (
    SMALLEST,
    Anisotropic,
    ChannelMode,
    Quantization,
    Volume,
    check_fields,
    field_error,
    spectrum_error,
)

_FAINT = 1e-8
"""Power that makes no difference, relative to the target's mean: it keeps ratios finite where a target has none."""

_PRECISION = 1e-14
"""Squared relative error of a network's values in float32, which have 24 bits and went through many sums."""

_TINY = 1e-30


class FieldMetric(ABC):
    """What the metrics of this file have in common.

    Args:
        title: for the log.
        axes: of space, 2 or 3.
        crop_border: px left out along each edge.
        better: direction in which the value improves.
    """

    def __init__(self, title: str, *, crop_border: int, better: Improves, axes: int = 2) -> None:
        self.title, self.axes, self.crop_border, self.better = title, axes, crop_border, better
        self.minimum = SMALLEST + 2 * crop_border

    @torch.no_grad()
    def __call__(self, output: Tensor, target: Tensor) -> float:
        """The figure for one pair of fields."""
        check_fields(self.title, output, target, axes=self.axes)
        pair = cropped(output, target, self.crop_border, minimum=SMALLEST, axes=self.axes)
        return self.compare(*map(_exact, pair)).item()  # synchronizes host and device

    @abstractmethod
    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """The figure for two fields in float64, a scalar."""

    def describe(self) -> str:
        """Name and crop for the log."""
        return f"{self.title} (all channels, crop {self.crop_border} px, values as they are)"


def _exact(field: Tensor) -> Tensor:
    return (field.cpu() if field.device.type == "mps" else field).double()  # MPS has no float64


def _noise(target: Tensor, quantization: float) -> Tensor:
    """Mean square of the error that values have from their levels and from float32: a scalar."""
    return quantization**2 / 12 + _PRECISION * target.square().mean() + _TINY


def _mean_over_fields(field: Tensor, channel_mode: str) -> Tensor:
    """(N, H, W): the planes whose spectra are compared."""
    field = field.mean(dim=-3) if channel_mode == "mean" else field
    return field.flatten(0, -3)


@METRICS.register("field_error")
class FieldError(FieldMetric):
    """mean of mean((output - target)^2) / (mean(target^2) + 1e-8), inner means over H and W, outer over channels.

    Shapes: output and target (1, C, H, W) or (1, T, C, H, W), any C and range of values, at least 4 px after the crop;
    with `volume` one axis more. Range: [0, inf), lower is better, 0 for equal fields; a black target divides by 1e-8
    only, so that one such image can outweigh all others in a mean.
    Reference: Oommen et al., "Integrating Neural Operators with Diffusion Models Improves Spectral Representation in
    Turbulence Modeling", 2024, its relative mean square error.

    ```yaml
    field_error: {type: field_error}
    ```
    """

    def __init__(self, *, volume: Volume = False, crop_border: CropBorder = 0, better: Improves = "lower") -> None:
        super().__init__("field error", crop_border=crop_border, better=better, axes=3 if volume else 2)

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return field_error(output, target, axes=self.axes)


@METRICS.register("spectrum_error")
class SpectrumError(FieldMetric):
    """mean((log P_output - log P_target)^2) / (mean((log P_target)^2) + 1e-10), P the power in radial bins.

    The value of the loss `spectrumerrorloss` with `floor: 0` (its default is 0.25): the logarithms are of P + 1e-10. A
    flat target has P near 0, so that one such image can outweigh all others in a mean.
    Shapes: output and target (1, C, H, W) or (1, T, C, H, W), any C and range of values, at least 4 px after the crop;
    with `volume` one axis more. Range: [0, inf), lower is better, 0 for equal fields; depends on the values' unit.
    Reference: Oommen et al., "Integrating Neural Operators with Diffusion Models Improves Spectral Representation in
    Turbulence Modeling", 2024, its error of energy spectra.

    ```yaml
    spectrum_error: {type: spectrum_error, channel_mode: each}
    ```
    """

    def __init__(
        self,
        *,
        channel_mode: ChannelMode = "mean",
        anisotropic: Anisotropic = False,
        volume: Volume = False,
        crop_border: CropBorder = 0,
        better: Improves = "lower",
    ) -> None:
        super().__init__("spectrum error", crop_border=crop_border, better=better, axes=3 if volume else 2)
        self.channel_mode: ChannelMode = channel_mode
        self.anisotropic = anisotropic

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return spectrum_error(
            output, target, channel_mode=self.channel_mode, anisotropic=self.anisotropic, axes=self.axes
        )


@METRICS.register("raps_distance")
class RAPSDistance(FieldMetric):
    """Root mean square over radial bins of 10 log10(P_output / P_target) in dB; the mean over channels if each counts.

    P is the radially averaged power spectrum. Added to both sides are 1e-8 of the target's mean power and the power of
    rounding to steps of `quantization`, so that a flat target has a spectrum too. Every wavelength counts alike; with
    `quantization` 0 the unit of the values does not matter.
    Shapes: output and target (1, C, H, W), any C and range of values, at least 4 px after the crop. Range: [0, inf) dB,
    lower is better, 0 for equal spectra; 3 dB is a factor of two in power.
    Reference: the log-spectral distance of Gray and Markel, "Distance measures for speech processing", IEEE TASSP 1976,
    over radial instead of temporal frequencies.

    ```yaml
    raps_distance: {type: raps_distance, crop_border: 4}  # fields: quantization: 0
    ```
    """

    def __init__(
        self,
        *,
        channel_mode: ChannelMode = "mean",
        quantization: Quantization = 1 / 255,
        crop_border: CropBorder = 0,
        better: Improves = "lower",
    ) -> None:
        super().__init__("RAPS distance in dB", crop_border=crop_border, better=better)
        self.channel_mode, self.quantization = channel_mode, quantization

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        ours, plan = binned_power(_mean_over_fields(output, self.channel_mode))
        theirs, _ = binned_power(_mean_over_fields(target, self.channel_mode))
        averaged = output.shape[-3] if self.channel_mode == "mean" else 1
        noise = _noise(target, self.quantization) * target.shape[-2:].numel() / averaged
        faint = plan.area * ((theirs / plan.area).mean(dim=-1, keepdim=True) * _FAINT + noise)
        ratio = (ours + faint) / (theirs + faint)
        return ratio.log10().mul(10).square().mean(dim=-1).sqrt().mean()


@METRICS.register("hf_share")
class HighFrequencyShare(FieldMetric):
    """|s_output / s_target - 1|, s the share of power at more than `cutoff` cycles/px; means are left out.

    0.4 says that 40 % of the target's fine structure is missing, or that there is 40 % too much; a plain enlargement
    has nearly 1. Power is summed over channels; that of rounding to steps of `quantization` is part of both shares, so
    that a flat target has one too.
    Shapes: output and target (1, C, H, W), any C and range of values, at least 4 px after the crop. Range: [0, inf),
    lower is better, 0 for equal shares.
    Reference: this implementation; 0.25 cycles/px is what a reduction to half the size can hold.

    ```yaml
    hf_share: {type: hf_share, cutoff: 0.25}  # fields: quantization: 0
    ```
    """

    def __init__(
        self,
        *,
        cutoff: Annotated[float, Field(ge=0, lt=0.7, description="where fine structure begins, cycles/px")] = 0.25,
        quantization: Quantization = 1 / 255,
        crop_border: CropBorder = 0,
        better: Improves = "lower",
    ) -> None:
        super().__init__(f"high-frequency share above {cutoff:g} cycles/px", crop_border=crop_border, better=better)
        self.cutoff, self.quantization = cutoff, quantization

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        size = (target.shape[-2], target.shape[-1])
        fine = (radius(wavenumbers(size)) / min(size) > self.cutoff).to(target.device)
        noise = _noise(target, self.quantization) * target[..., 0, 0].numel() * target.shape[-2:].numel()
        noise = noise * multiplicity(size[1]).to(target).expand(fine.shape)
        ours, theirs = (half_power(field).flatten(0, -3).sum(dim=0) + noise for field in (output, target))
        ours, theirs = (power[fine].sum() / power.sum() for power in (ours, theirs))
        return (ours - theirs).abs() / (theirs + _FAINT)


@METRICS.register("grid_energy")
class GridEnergy(FieldMetric):
    """max(0, 10 log10(G_output / G_target)) in dB, G the power at (.5, 0), (0, .5) and (.5, .5) cycles/px.

    Stripes and checkerboards of single pixels are what an upsampler leaves that treats odd and even pixels differently;
    stripes of one 8-bit level in a smooth photograph give about 10 dB. G is the mean of |DFT|^2 under a Hann window
    over channels and over those three coefficients with their neighbours, plus 1e-8 of the target's mean power and the
    power of rounding to steps of `quantization`. A smoother result is no better than the target.
    Shapes: output and target (1, C, H, W), any C and range of values, at least 4 px after the crop. Range: [0, inf) dB,
    lower is better, 0 for no more than the target has.
    Reference: Odena et al., "Deconvolution and checkerboard artifacts", Distill 2016 (the effect); the figure is ours.

    ```yaml
    grid_energy: {type: grid_energy}  # fields: quantization: 0
    ```
    """

    def __init__(
        self, *, quantization: Quantization = 1 / 255, crop_border: CropBorder = 0, better: Improves = "lower"
    ) -> None:
        super().__init__("grid energy in dB", crop_border=crop_border, better=better)
        self.quantization = quantization

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        ours, theirs = (half_power(_windowed(field)).flatten(0, -3).mean(dim=0) for field in (output, target))
        here = _at_grid(target.shape[-2], target.shape[-1]).to(theirs.device)
        energy = _hann(target).square().sum()  # of the window, by which noise comes through it
        noise = _noise(target, self.quantization) * energy * multiplicity(target.shape[-1]).to(theirs)
        faint = theirs.mean() * _FAINT + noise.expand_as(theirs)[here].mean()
        return 10 * ((ours[here].mean() + faint) / (theirs[here].mean() + faint)).log10().clamp(min=0)


def _windowed(field: Tensor) -> Tensor:
    """Without its mean and under a Hann window: an image's left and right edges do not fit together otherwise."""
    return (field - field.mean(dim=(-2, -1), keepdim=True)) * _hann(field)


def _hann(field: Tensor) -> Tensor:
    rows, columns = (torch.hann_window(length, dtype=field.dtype, device=field.device) for length in field.shape[-2:])
    return rows[:, None] * columns


def _at_grid(height: int, width: int) -> Tensor:
    """Which coefficients of the half spectrum lie within one of Nyquist's frequency along one axis or along both."""
    near: list[tuple[Tensor, Tensor]] = []
    for axis, length in zip(wavenumbers((height, width)), (height, width), strict=True):
        cycles, reach = axis.abs() / min(height, width), 1.001 / length
        near.append((cycles <= reach, cycles >= 0.5 - reach))
    (low_y, high_y), (low_x, high_x) = near
    return (high_y & (low_x | high_x)) | (low_y & high_x)
