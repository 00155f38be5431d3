"""NCC: normalized cross-correlation."""

from __future__ import annotations

from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES

EPS = 1e-8
"""Added to the covariance and both variances: equal constant images have r = 1, and no slope is infinite."""


def normalized_cross_correlation(output: Tensor, target: Tensor) -> Tensor:
    """(cov + 1e-8) / sqrt((var_output + 1e-8) (var_target + 1e-8)) over the pixels of each channel, (B, C) in [-1, 1].

    Source: Pearson's coefficient of correlation, without lag.
    """
    x, y = (image - image.mean(dim=(-2, -1), keepdim=True) for image in (output, target))
    covariance, variance_x, variance_y = ((a * b).mean(dim=(-2, -1)) + EPS for a, b in ((x, y), (x, x), (y, y)))
    return covariance * variance_x.rsqrt() * variance_y.rsqrt()


@LOSSES.register("nccloss")
class NCCLoss(Loss):
    """mean over images and channels of (1 - r) / 2, r the correlation of output and target over pixels.

    It does not see brightness and contrast: a output + b with a > 0 has the value of output.
    Shapes: `output` and `target` (B, C, H, W). Range: [0, 1], 0 where they are equal.
    Reference: Lewis, "Fast Normalized Cross-Correlation", Vision Interface 1995, equation 2 without shift.
    traiNNer-redux: mixes the images and channels of a batch (for one image it is the same), and is not a number where
    an image is constant.

    ```yaml
    - type: nccloss
      loss_weight: 0.1
    ```
    """

    kind = "structure"

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return (1 - normalized_cross_correlation(output, target).mean()) / 2
