"""Relative errors of fields: of their values, and of the logarithm of their power spectra."""

from __future__ import annotations

from torch import Tensor

from traiNNer.losses.spectra import FieldLoss, Floor
from traiNNer.utils.registry import LOSSES
from traiNNer.utils.relative_errors import (
    Anisotropic,
    ChannelMode,
    Quantization,
    Volume,
    field_error,
    spectrum_error,
)


@LOSSES.register("fielderrorloss")
class FieldErrorLoss(FieldLoss):
    """mean of mean((output - target)^2) / (mean(target^2) + 1e-8), inner means over H and W, outer over the rest.

    MSE relative to each frame's and channel's own power: frames that are weak count as much as strong ones.

    Shapes: `output` and `target` (B, C, H, W) or (B, T, C, H, W), any C, at least 4 px a side; with `volume`
    (B, C, D, H, W) or (B, T, C, D, H, W). Range: [0, inf), 0 where they are equal, 1 for an output of 0.
    Reference: the relative mean square error of fields in Oommen et al., "Integrating Neural Operators with Diffusion
    Models Improves Spectral Representation in Turbulence Modeling", 2024.

    ```yaml
    - type: fielderrorloss
      loss_weight: 1.0
    ```
    """

    kind = "pixel"

    def __init__(self, *, volume: Volume = False) -> None:
        super().__init__("fielderrorloss", axes=3 if volume else 2)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        self.check(output, target)
        return field_error(output, target, axes=self.axes)


@LOSSES.register("spectrumerrorloss")
class SpectrumErrorLoss(FieldLoss):
    """mean((log P_output - log P_target)^2) / mean((log P_target)^2), P the power in radial bins of the 2-D spectrum.

    P_k is the mean of |DFT2|^2 over k - 0.5 <= sqrt(kx^2 + ky^2) < k + 0.5 times the annulus' area
    pi ((k + 0.5)^2 - (k - 0.5)^2), k = 1, 2, ..., min(H, W) // 2 in cycles per shorter side; with `volume`, shells. The
    logarithms are of P + phi, phi = 1e-10 + `floor` P_target + the power of rounding to `quantization`, and the
    denominator is max(mean((log P_target)^2) + 10, 40); with `floor` 0 phi is 1e-10, and 1e-10 is added to the
    denominator. Inner means are over bins (and frames and channels), then the mean over the batch. The metric of the
    same name has no floor.

    It sees no phases: use it beside a loss of pixels. Corners of the spectrum, such as a checkerboard's, and on long
    images waves longer than the shorter side are in no bin; `anisotropic` sees the corners. The gradient is at most 50
    times L1's for 8-bit images down to a contrast of 0.01 with the default floor. With `floor` 0 power below 1e-13 of
    the mean power of a coefficient is float32's rounding, unless the field is float64. `quantization` assumes 8-bit
    images in [0, 1]: set it to 0 for other fields. On CUDA the bins of images above 320 x 320 px are summed in no
    certain order unless the run is deterministic.

    Shapes: `output` and `target` (B, C, H, W) or (B, T, C, H, W), any C, at least 4 px a side; with `volume`
    (B, C, D, H, W) or (B, T, C, D, H, W). Range: [0, inf), 0 where all powers are equal.
    Reference: the error of energy spectra in Oommen et al., "Integrating Neural Operators with Diffusion Models
    Improves Spectral Representation in Turbulence Modeling", 2024; the floor is ours.

    ```yaml
    - type: spectrumerrorloss
      loss_weight: 0.1
      channel_mode: each
      # quantization: 0  # fields: their values are not levels of 8 bits in [0, 1]
    ```
    """

    kind = "frequency"

    def __init__(
        self,
        *,
        channel_mode: ChannelMode = "mean",
        anisotropic: Anisotropic = False,
        volume: Volume = False,
        floor: Floor = 0.25,
        quantization: Quantization = 1 / 255,
    ) -> None:
        super().__init__("spectrumerrorloss", axes=3 if volume else 2)
        self.channel_mode: ChannelMode = channel_mode
        self.anisotropic = anisotropic
        self.floor, self.quantization = floor, quantization

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        self.check(output, target)
        return spectrum_error(
            output,
            target,
            channel_mode=self.channel_mode,
            anisotropic=self.anisotropic,
            axes=self.axes,
            floor=self.floor,
            quantization=self.quantization,
        )
