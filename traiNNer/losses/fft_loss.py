"""L1 between Fourier spectra."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.losses.spectra import spectrum
from traiNNer.utils.registry import LOSSES


def spectral_l1(output: Tensor, target: Tensor) -> Tensor:
    """|Re| and |Im| of the difference of two images' spectra, (B, C, H, W, 2) from (B, C, H, W).

    The DFT is not normalized: values grow with sqrt(H W) for noise and with H W for a difference in mean.
    Source: Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021, its loss of
    frequency reconstruction, taken part by part as its code and that of MAXIM (Tu et al., CVPR 2022) do.
    """
    return spectrum(output - target, norm="backward").abs()


@LOSSES.register("fftloss")
class FFTLoss(Loss):
    """mean |Re F(output) - Re F(target)| and |Im F(output) - Im F(target)|, F the 2-D DFT without normalization.

    traiNNer-redux: the name is the fork's; its code was not at hand, this is the form that its description names.

    Shapes: `output` and `target` (B, C, H, W). Range: [0, inf), 0 where they are equal; about sqrt(H W) times L1.
    Reference: Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021.

    ```yaml
    - type: fftloss
      loss_weight: 0.05
    ```
    """

    kind = "frequency"

    def __init__(
        self,
        *,
        reduction: Annotated[Literal["mean", "sum"], Field(description="mean or sum over all coefficients")] = "mean",
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.sums_images = reduction == "sum"

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        values = spectral_l1(output, target)
        return values.mean() if self.reduction == "mean" else values.sum()
