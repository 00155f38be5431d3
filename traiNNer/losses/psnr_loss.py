"""PSNR, negated: a logarithm of the squared error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.utils.luma import luma
from traiNNer.utils.registry import LOSSES

EPS = 1e-8
"""Added to the squared error, so that equal images have a value: -80 dB."""


def negative_psnr(output: Tensor, target: Tensor) -> Tensor:
    """10 log10(mean (output - target)^2 + 1e-8) of each image, (B,) in dB; the mean over channels and pixels.

    Source: PSNR for images in [0, 1] with its sign turned; as a loss in Chen et al., "HINet", CVPRW 2021.
    """
    return 10 * ((output - target) ** 2).mean(dim=(1, 2, 3)).add(EPS).log10()


@LOSSES.register("psnrloss")
class PSNRLoss(Loss):
    """mean over images of 10 log10(MSE + 1e-8): the negative PSNR, in dB.

    Its gradient is that of the MSE divided by the MSE, so good images pull as hard as bad ones.
    Shapes: `output` and `target` (B, 3, H, W). Range: [-80, inf) dB, -80 where they are equal; -PSNR else.
    Reference: Chen et al., "HINet: Half Instance Normalization Network for Image Restoration", CVPRW 2021.
    traiNNer-redux: the same.

    ```yaml
    - type: psnrloss
      loss_weight: 0.5
      to_y: true
    ```
    """

    kind = "pixel"
    minimum = -80.0
    images_only = True

    def __init__(
        self,
        *,
        reduction: Annotated[Literal["mean"], Field(description="mean over images; there is no other")] = "mean",
        to_y: Annotated[bool, Field(description="compare BT.601 luma (16 to 235) instead of RGB")] = False,
    ) -> None:
        super().__init__()
        self.to_y = to_y
        self.channels = 3 if to_y else None

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        if self.to_y:
            output, target = luma(output, "ycbcr"), luma(target, "ycbcr")
        return negative_psnr(output, target).mean()
