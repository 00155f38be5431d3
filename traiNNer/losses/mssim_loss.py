"""MS-SSIM: structural similarity at several scales."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.losses.local_similarity import (
    SIGMA,
    WINDOW,
    ColorSpace,
    Downsample,
    TestYChannel,
    check_size,
    downsampled,
    gaussian_taps,
    luminance_and_structure,
)
from traiNNer.utils.logging import get_logger
from traiNNer.utils.luma import LumaSpace, luma
from traiNNer.utils.registry import LOSSES

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, from full size down; measured by Wang et al. Their sum is 1.0001."""

FLOOR = 1e-3
"""Mean similarity of a scale below which its power is continued; see `positive`."""


def scales_that_fit(height: int, width: int) -> int:
    """How many of the five scales have room for SSIM's window; sides are halved and rounded up."""
    side, scales = min(height, width), 0
    while side >= WINDOW and scales < len(WEIGHTS):
        side, scales = (side + 1) // 2, scales + 1
    return scales


def positive(similarity: Tensor) -> Tensor:
    """The similarity itself from FLOOR on, FLOOR^2 / (2 FLOOR - similarity) below: a smooth continuation above 0.

    The mean of cs can be negative, which has no fractional power, and at 0 the power's slope is infinite.
    """
    return torch.where(similarity >= FLOOR, similarity, FLOOR**2 / (2 * FLOOR - similarity.clamp(max=FLOOR)))


def ms_ssim(output: Tensor, target: Tensor, *, is_prod: bool = True, include_luminance: bool = True) -> Tensor:
    """prod_j mean(cs_j)^w_j over scales j, each half the size of the one before; at the smallest, mean(l cs) for cs.

    As many of the five scales as have room for the window; with fewer, their weights are divided by their sum.

    Args:
        output: (B, C, H, W), about [0, 1], at least 11x11 px.
        target: the same.
        is_prod: the product of powers as published, else the sum of w_j mean(cs_j) with weights of sum 1.
        include_luminance: l at the smallest scale as published; without it mean brightness is not compared.

    Returns:
        (B,), 1 for equal images; in (0, 1] for the product, [-1, 1] for the sum.

    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", Asilomar 2003,
    equation 7, with the means over places taken before the powers and the blocks of 2x2 px of their program.
    """
    scales = scales_that_fit(*output.shape[-2:])
    weights = WEIGHTS[:scales]
    if scales < len(WEIGHTS) or not is_prod:
        weights = tuple(weight / sum(weights) for weight in weights)
    taps = gaussian_taps(SIGMA, WINDOW // 2, output)
    score = torch.ones_like(output[:, 0, 0, 0]) if is_prod else torch.zeros_like(output[:, 0, 0, 0])
    for scale, weight in enumerate(weights, 1):
        luminance, structure = luminance_and_structure(output, target, taps)
        last = scale == scales
        similarity = (luminance * structure if include_luminance and last else structure).mean(dim=(1, 2, 3))
        score = score * positive(similarity) ** weight if is_prod else score + weight * similarity
        if not last:
            # Blocks cut off by the edge of an odd size are averaged over what is there.
            output, target = (F.avg_pool2d(image, 2, ceil_mode=True) for image in (output, target))
    return score


@LOSSES.register("mssimloss")
class MSSIMLoss(Loss):
    """mean over images of 1 - MS-SSIM, with MS-SSIM = prod_j mean(cs_j)^w_j over up to five scales.

    cs = (2 s_xy + C2) / (s_x^2 + s_y^2 + C2) as in `ssimloss`, w = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333; a scale is
    used if its shorter side is 11 px or more (all five from 161 px on), the weights of fewer are divided by their sum.
    With `include_luminance` the smallest scale has l cs in place of cs, as published.
    Shapes: `output` and `target` (B, 3, H, W), at least 11 px. Range: [0, 1) for the product, [0, 2] for the sum;
    smallest where they are equal.
    Reference: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", Asilomar 2003,
    equation 7.
    traiNNer-redux: has all five scales of small images too, with zeros around what is smaller than the window and
    around odd sizes; clamps images to [0, 1] and cs to at least 0, where nothing has a gradient; `downsample` acts at
    every scale there, before the first one here. Its default without luminance is kept.

    ```yaml
    - type: mssimloss
      loss_weight: 1.0
      include_luminance: true
    ```
    """

    kind = "structure"
    images_only = True

    def __init__(
        self,
        *,
        channels: Annotated[Literal[3], Field(description="of the images; always 3")] = 3,
        downsample: Downsample = False,
        test_y_channel: TestYChannel = True,
        is_prod: Annotated[bool, Field(description="product of powers, as published; else the weighted sum")] = True,
        color_space: ColorSpace = "yiq",
        include_luminance: Annotated[
            bool, Field(description="compare mean brightness at the smallest scale too, as published")
        ] = False,
    ) -> None:
        super().__init__()
        self.downsample, self.is_prod, self.include_luminance = downsample, is_prod, include_luminance
        self.test_y_channel = test_y_channel
        self.channels = 3 if test_y_channel else None
        self.color_space: LumaSpace = color_space
        self._said_how_many = False

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        output, target = self._prepared(output), self._prepared(target)
        check_size(output, "mssimloss")
        self._say_how_many(*output.shape[-2:])
        score = ms_ssim(output, target, is_prod=self.is_prod, include_luminance=self.include_luminance)
        return 1 - score.mean()

    def _prepared(self, image: Tensor) -> Tensor:
        image = luma(image, self.color_space) if self.test_y_channel else image
        return downsampled(image) if self.downsample else image

    def _say_how_many(self, height: int, width: int) -> None:
        scales = scales_that_fit(height, width)
        if scales < len(WEIGHTS) and not self._said_how_many:
            self._said_how_many = True
            message = "mssimloss: images of %dx%d px have room for %d of its %d scales; their weights now sum to 1"
            get_logger().info(message, width, height, scales, len(WEIGHTS))
