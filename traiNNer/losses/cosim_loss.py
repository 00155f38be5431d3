"""Cosine similarity of colours: hue and saturation, not brightness."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES

DARK = 1 / 255
"""Length of an RGB vector below which its direction counts less and less: for black it is not defined."""


def cosine_distance(output: Tensor, target: Tensor) -> Tensor:
    """1 - cos of the angle between the colours at each pixel, (B, H, W).

    Written as half the squared distance of the vectors divided by their lengths, which loses no digits near 0. Vectors
    shorter than one level of 8 bits are divided by that instead, so that the gradient is finite at black.
    Source: cosine similarity, `torch.nn.functional.cosine_similarity`.
    """
    x, y = (F.normalize(image, dim=1, eps=DARK) for image in (output, target))
    return ((x - y) ** 2).sum(dim=1) / 2


@LOSSES.register("cosimloss")
class CosimLoss(Loss):
    """cosim_lambda * mean over pixels of 1 - cos(output, target), the angle between two RGB vectors.

    It does not see brightness: twice as bright is the same. Vectors shorter than 1/255 count less.
    Shapes: `output` and `target` (B, C, H, W). Range: [0, 2 cosim_lambda], 0 where they are equal.
    Reference: cosine similarity, `torch.nn.functional.cosine_similarity`; as a penalty in neosr's MS-SSIM loss.
    traiNNer-redux: clamps both to [1e-12, 1], where nothing has a gradient, and takes black for a grey; else the same.

    ```yaml
    - type: cosimloss
      loss_weight: 1.0
      cosim_lambda: 5
    ```
    """

    kind = "color"

    def __init__(
        self, *, cosim_lambda: Annotated[float, Field(gt=0, description="factor of the mean distance")] = 5.0
    ) -> None:
        super().__init__()
        self.cosim_lambda = cosim_lambda

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return self.cosim_lambda * cosine_distance(output, target).mean()
