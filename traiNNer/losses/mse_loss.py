"""MSE: mean squared error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES


@LOSSES.register("mseloss")
class MSELoss(Loss):
    """mean (output - target)^2, the mean squared error over batch, channels and pixels.

    Shapes: `output` and `target` (B, C, H, W). Range: [0, inf), 0 where they are equal.
    Reference: `torch.nn.functional.mse_loss`.
    traiNNer-redux: the same; `reduction: none` and weights per pixel are not offered.

    ```yaml
    - type: mseloss
      loss_weight: 1.0
    ```
    """

    kind = "pixel"

    def __init__(
        self,
        *,
        reduction: Annotated[Literal["mean", "sum"], Field(description="mean or sum over all elements")] = "mean",
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.sums_images = reduction == "sum"

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return F.mse_loss(output, target, reduction=self.reduction)
