"""Sobel edges: squared error of the gradients of luma."""

from __future__ import annotations

from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.losses.gradient_maps import sobel
from traiNNer.utils.luma import luma
from traiNNer.utils.registry import LOSSES


def sobel_edge_error(output: Tensor, target: Tensor) -> Tensor:
    """(gx^2 + gy^2) / 2 at each pixel, g the Sobel gradients / 4 of the difference of luma; (B, 1, H, W).

    Source: the operator of Sobel and Feldman, 1968; as a loss in traiNNer-redux.
    """
    across, down = sobel(luma(output - target))
    return (across**2 + down**2) / (2 * 4**2)


@LOSSES.register("sobeledgeloss")
class SobelEdgeLoss(Loss):
    """mean (|S_x * d|^2 + |S_y * d|^2) / 2, d the difference of luma, S Sobel's kernels / 4.

    Luma is 0.299 R + 0.587 G + 0.114 B, S_x = [1, 2, 1]^T [-1, 0, 1] / 4, with zeros around the image.
    Shapes: `output` and `target` (B, 3, H, W). Range: [0, inf), 0 where they are equal.
    Reference: Sobel, Feldman, "A 3x3 isotropic gradient operator for image processing", 1968; traiNNer-redux.
    traiNNer-redux: the same.

    ```yaml
    - type: sobeledgeloss
      loss_weight: 0.1
    ```
    """

    kind = "structure"
    channels = 3

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return sobel_edge_error(output, target).mean()
