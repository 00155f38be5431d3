"""Difference of means over blocks of pixels."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses import criteria
from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES


def block_means(image: Tensor, scale: int) -> Tensor:
    """The mean of every `scale` x `scale` px, (B, C, ceil(H / scale), ceil(W / scale)) from (B, C, H, W).

    Blocks that the image's edge cuts are means of what they have.
    """
    return F.avg_pool2d(image, scale, ceil_mode=True)


@LOSSES.register("averageloss")
class AverageLoss(Loss):
    """criterion(means of output, of target) over blocks of `scale` x `scale` px: right when reduced.

    traiNNer-redux: the same for sizes that `scale` divides; it ignores the rest of others.

    Shapes: `output` and `target` (B, C, H, W). Range: [0, inf), smallest where all means are equal.
    Reference: `torch.nn.functional.avg_pool2d`.

    ```yaml
    - type: averageloss
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
        scale: Annotated[int, Field(ge=1, le=32, description="side of a block, px of GT")] = 4,
    ) -> None:
        super().__init__()
        self.criterion, self.scale = criteria.criterion(criterion), scale
        self.minimum = float(self.criterion(torch.zeros(1), torch.zeros(1)))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return self.criterion(block_means(output, self.scale), block_means(target, self.scale))
