"""Total variation: how much an image changes from pixel to pixel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES


def total_variation(image: Tensor, eps: float = 1e-6) -> Tensor:
    """sqrt(dx^2 + dy^2 + eps) per element, (B, C, H, W); dx and dy lead to the next pixel, 0 at the last one.

    Source: Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 1992.
    """
    across = F.pad(image[..., 1:] - image[..., :-1], (0, 1))
    down = F.pad(image[..., 1:, :] - image[..., :-1, :], (0, 0, 0, 1))
    return (across**2 + down**2 + eps).sqrt()


@LOSSES.register("tvloss")
class TVLoss(Loss):
    """mean sqrt(dx^2 + dy^2 + eps) of the output alone: isotropic total variation, which smoothes.

    Shapes: `output` (B, C, H, W). Range: [sqrt(eps), inf) for the mean, smallest for constant images.
    Reference: Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 1992.
    traiNNer-redux: only in its fork, the same.

    ```yaml
    - type: tvloss
      loss_weight: 0.01
    ```
    """

    minimum = None

    def __init__(
        self,
        *,
        reduction: Annotated[Literal["mean", "sum"], Field(description="mean or sum over all elements")] = "mean",
        eps: Annotated[float, Field(gt=0, description="added under the root, in squared intensity")] = 1e-6,
    ) -> None:
        super().__init__()
        self.reduction, self.eps = reduction, eps
        self.sums_images = reduction == "sum"

    def forward(self, output: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        values = total_variation(output, self.eps)
        return values.mean() if self.reduction == "mean" else values.sum()
