"""Relative errors of fields and of their power spectra, and figures of what a spectrum lacks or has too much.

Unlike PSNR and its kind these take values of any range and any number of channels, as they are: nothing is clamped or
rounded to 8-bit levels. Computed in float64.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.metrics.comparison import CropBorder, Improves, cropped
from traiNNer.utils.power_spectrum import binned_power, half_power, radius, wavenumbers
from traiNNer.utils.registry import METRICS
from traiNNer.utils.relative_errors import SMALLEST, Anisotropic, ChannelMode, Volume, field_error, spectrum_error

_FAINT = 1e-8
"""Power that makes no difference, relative to the target's mean: it keeps ratios finite where a target has none."""

_TINY = 1e-30


class FieldMetric:
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
        pair = cropped(output, target, self.crop_border, minimum=SMALLEST)
        return self.compare(*map(_exact, pair)).item()  # synchronizes host and device

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """The figure for two fields in float64, a scalar."""
        raise NotImplementedError

    def describe(self) -> str:
        """Name and crop for the log."""
        return f"{self.title} (all channels, crop {self.crop_border} px, values as they are)"


def _exact(field: Tensor) -> Tensor:
    return (field.cpu() if field.device.type == "mps" else field).double()  # MPS has no float64


def _mean_over_fields(field: Tensor, channel_mode: str) -> Tensor:
    """(N, H, W): the planes whose spectra are compared."""
    field = field.mean(dim=-3) if channel_mode == "mean" else field
    return field.flatten(0, -3)


@METRICS.register("field_error")
class FieldError(FieldMetric):
    """mean of mean((output - target)^2) / (mean(target^2) + 1e-8), inner means over H and W, outer over channels.

    Shapes: output and target (1, C, H, W) or (1, T, C, H, W), any C and range of values, at least 4 px after the crop;
    with `volume` one axis more. Range: [0, inf), lower is better, 0 for equal fields.
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

    The value of the loss `spectrumerrorloss` with its `floor` at 0: the logarithms are of P + 1e-10.
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

    P is the radially averaged power spectrum, with 1e-8 of the target's mean power added to both sides. Every
    wavelength counts alike, and the unit of the values does not matter.
    Shapes: output and target (1, C, H, W), any C and range of values, at least 4 px after the crop. Range: [0, inf) dB,
    lower is better, 0 for equal spectra; 3 dB is a factor of two in power.
    Reference: the log-spectral distance of Gray and Markel, "Distance measures for speech processing", IEEE TASSP 1976,
    over radial instead of temporal frequencies.

    ```yaml
    raps_distance: {type: raps_distance, crop_border: 4}
    ```
    """

    def __init__(
        self, *, channel_mode: ChannelMode = "mean", crop_border: CropBorder = 0, better: Improves = "lower"
    ) -> None:
        super().__init__("RAPS distance in dB", crop_border=crop_border, better=better)
        self.channel_mode = channel_mode

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        ours, plan = binned_power(_mean_over_fields(output, self.channel_mode))
        theirs, _ = binned_power(_mean_over_fields(target, self.channel_mode))
        faint = plan.area * (theirs / plan.area).mean(dim=-1, keepdim=True) * _FAINT + _TINY
        ratio = (ours + faint) / (theirs + faint)
        return ratio.log10().mul(10).square().mean(dim=-1).sqrt().mean()


@METRICS.register("hf_share")
class HighFrequencyShare(FieldMetric):
    """|s_output / s_target - 1|, s the share of power at more than `cutoff` cycles/px; means are left out.

    0.4 says that 40 % of the target's fine structure is missing, or that there is 40 % too much; a plain enlargement
    has nearly 1. Power is summed over channels.
    Shapes: output and target (1, C, H, W), any C and range of values, at least 4 px after the crop. Range: [0, inf),
    lower is better, 0 for equal shares.
    Reference: this implementation; 0.25 cycles/px is what a reduction to half the size can hold.

    ```yaml
    hf_share: {type: hf_share, cutoff: 0.25}
    ```
    """

    def __init__(
        self,
        *,
        cutoff: Annotated[float, Field(ge=0, lt=0.7, description="where fine structure begins, cycles/px")] = 0.25,
        crop_border: CropBorder = 0,
        better: Improves = "lower",
    ) -> None:
        super().__init__(f"high-frequency share above {cutoff:g} cycles/px", crop_border=crop_border, better=better)
        self.cutoff = cutoff

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        ours, theirs = self._share(output), self._share(target)
        return (ours - theirs).abs() / (theirs + _FAINT)

    def _share(self, field: Tensor) -> Tensor:
        power = half_power(field).flatten(0, -3).sum(dim=0)
        size = (field.shape[-2], field.shape[-1])
        frequency = radius(wavenumbers(size)).to(power.device) / min(size)
        return power[frequency > self.cutoff].sum() / (power.sum() + _TINY)


@METRICS.register("grid_energy")
class GridEnergy(FieldMetric):
    """max(0, 10 log10(G_output / G_target)) in dB, G the power at (.5, 0), (0, .5) and (.5, .5) cycles/px.

    Stripes and checkerboards of single pixels are what an upsampler leaves that treats odd and even pixels differently;
    stripes of one 8-bit level in a smooth photograph give about 10 dB. G is the mean of |DFT|^2 under a Hann window
    over channels and over those three coefficients with their neighbours, plus 1e-8 of the target's mean power. A
    smoother result is no better than the target.
    Shapes: output and target (1, C, H, W), any C and range of values, at least 4 px after the crop. Range: [0, inf) dB,
    lower is better, 0 for no more than the target has.
    Reference: Odena et al., "Deconvolution and checkerboard artifacts", Distill 2016 (the effect); the figure is ours.

    ```yaml
    grid_energy: {type: grid_energy}
    ```
    """

    def __init__(self, *, crop_border: CropBorder = 0, better: Improves = "lower") -> None:
        super().__init__("grid energy in dB", crop_border=crop_border, better=better)

    def compare(self, output: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        ours, theirs = (half_power(_windowed(field)).flatten(0, -3).mean(dim=0) for field in (output, target))
        here = _at_grid(target.shape[-2], target.shape[-1]).to(theirs.device)
        faint = theirs.mean() * _FAINT + _TINY
        return 10 * ((ours[here].mean() + faint) / (theirs[here].mean() + faint)).log10().clamp(min=0)


def _windowed(field: Tensor) -> Tensor:
    """Without its mean and under a Hann window: an image's left and right edges do not fit together otherwise."""
    rows, columns = (torch.hann_window(length, dtype=field.dtype, device=field.device) for length in field.shape[-2:])
    return (field - field.mean(dim=(-2, -1), keepdim=True)) * rows[:, None] * columns


def _at_grid(height: int, width: int) -> Tensor:
    """Which coefficients of the half spectrum lie within one of Nyquist's frequency along one axis or along both."""
    near: list[tuple[Tensor, Tensor]] = []
    for axis, length in zip(wavenumbers((height, width)), (height, width), strict=True):
        cycles, reach = axis.abs() / min(height, width), 1.001 / length
        near.append((cycles <= reach, cycles >= 0.5 - reach))
    (low_y, high_y), (low_x, high_x) = near
    return (high_y & (low_x | high_x)) | (low_y & high_x)
