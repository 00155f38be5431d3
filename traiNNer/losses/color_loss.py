"""Difference of colour, coarser than the image: chroma of blocks of pixels."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses import criteria
from traiNNer.losses.base import Loss
from traiNNer.utils.cie import mix
from traiNNer.utils.registry import LOSSES

_CB = (-37.797 / 255, -74.203 / 255, 112.0 / 255)
_CR = (112.0 / 255, -93.786 / 255, -18.214 / 255)


def block_chroma(image: Tensor, scale: int) -> Tensor:
    """Cb and Cr of the mean of `scale` x `scale` px, (B, 2, ceil(H / scale), ceil(W / scale)), 0 for grey.

    BT.601's in MATLAB's form (footroom), from RGB (B, 3, H, W) in [0, 1]; without its offset of 128 / 255, which a
    difference does not see. Blocks that the image's edge cuts are means of what they have.
    """
    means = F.avg_pool2d(image, scale, ceil_mode=True)
    return torch.cat([mix(means, _CB), mix(means, _CR)], dim=1)


@LOSSES.register("colorloss")
class ColorLoss(Loss):
    """criterion(Cb, Cr of output, of target), both means over blocks of `scale` x `scale` px.

    traiNNer-redux: the same for sizes that `scale` divides; it ignores the rest of others.

    Shapes: `output` and `target` (B, 3, H, W). Range: [0, inf), smallest where the chroma of all blocks is equal.
    Reference: ITU-R BT.601 (YCbCr).

    ```yaml
    - type: colorloss
      loss_weight: 1.0
      criterion: l1
      scale: 4
    ```
    """

    kind = "color"
    channels = 3

    def __init__(
        self,
        *,
        criterion: criteria.CriterionName = "l1",
        scale: Annotated[int, Field(ge=1, le=32, description="side of a block, px of GT")] = 4,
    ) -> None:
        super().__init__()
        self.criterion, self.scale = criteria.criterion(criterion), scale
        self.minimum = float(self.criterion(torch.zeros(1), torch.zeros(1)))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return self.criterion(block_chroma(output, self.scale), block_chroma(target, self.scale))
