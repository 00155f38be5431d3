"""Difference of images reduced bicubically."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses import criteria
from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES


def reduced(image: Tensor, scale: int) -> Tensor:
    """The image reduced to (B, C, H // scale, W // scale), then blurred, from (B, C, H, W).

    Keys' cubic kernel (a = -0.5) stretched by the scale, then 5 x 5 px of a Gaussian of 0.5 px, continued by
    reflection. Values may leave the range of the image's.
    """
    from torchvision.transforms.v2.functional import gaussian_blur

    size = (image.shape[-2] // scale, image.shape[-1] // scale)
    small = F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)
    return gaussian_blur(small, kernel_size=[5, 5], sigma=[0.5, 0.5])


@LOSSES.register("bicubicloss")
class BicubicLoss(Loss):
    """criterion(output, target), both reduced bicubically by `scale` and blurred: right when compared to the LQ.

    traiNNer-redux: the same.

    Shapes: `output` and `target` (B, C, H, W), at least 3 `scale` px. Range: [0, inf), smallest where both are equal.
    Reference: Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981.

    ```yaml
    - type: bicubicloss
      loss_weight: 1.0
      criterion: l1
      scale: 4
    ```
    """

    kind = "pixel"

    def __init__(
        self,
        *,
        criterion: criteria.CriterionName = "l1",
        scale: Annotated[int, Field(ge=1, le=8, description="GT px per px of the reduced images")] = 4,
    ) -> None:
        super().__init__()
        self.criterion, self.scale = criteria.criterion(criterion), scale
        self.minimum = float(self.criterion(torch.zeros(1), torch.zeros(1)))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return self.criterion(reduced(output, self.scale), reduced(target, self.scale))
