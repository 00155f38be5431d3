"""SSIM: structural similarity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

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
from traiNNer.utils.luma import LumaSpace, luma
from traiNNer.utils.registry import LOSSES


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Mean of l cs over channels and the places of an 11x11 Gaussian window of sigma 1.5 within the image.

    Args:
        output: (B, C, H, W), about [0, 1], at least 11x11 px.
        target: the same.

    Returns:
        (B,) in [-1, 1], 1 for equal images.

    Source: Wang et al., IEEE TIP 2004, equation 13, and its mean over windows.
    """
    luminance, structure = luminance_and_structure(output, target, gaussian_taps(SIGMA, WINDOW // 2, output))
    return (luminance * structure).mean(dim=(1, 2, 3))


@LOSSES.register("ssimloss")
class SSIMLoss(Loss):
    """mean over images of 1 - SSIM: differences of local mean, contrast and structure.

    SSIM = (2 mu_x mu_y + C1) (2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (s_x^2 + s_y^2 + C2)) under an 11x11 Gaussian
    window of sigma 1.5, only where it lies within the image; C1 = 0.01^2, C2 = 0.03^2.
    Shapes: `output` and `target` (B, 3, H, W), at least 11 px after the crop. Range: [0, 2], 0 where they are equal.
    Reference: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004,
    equation 13.
    traiNNer-redux: returns SSIM itself, which training then lowers, and clamps both images to [0, 1] and the factor
    of structure to at least 0, where nothing has a gradient; this is 1 - SSIM as published, unclamped.

    ```yaml
    - type: ssimloss
      loss_weight: 1.0
      test_y_channel: true
      color_space: yiq
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
        color_space: ColorSpace = "yiq",
        crop_border: Annotated[int, Field(ge=0, description="pixels left out along each edge, px")] = 0,
    ) -> None:
        super().__init__()
        self.downsample, self.crop_border = downsample, crop_border
        self.test_y_channel = test_y_channel
        self.channels = 3 if test_y_channel else None
        self.color_space: LumaSpace = color_space

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        output, target = self._prepared(output), self._prepared(target)
        check_size(output, f"ssimloss, crop_border {self.crop_border}")
        return 1 - ssim(output, target).mean()

    def _prepared(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        border = self.crop_border
        image = image[..., border : height - border, border : width - border]
        image = luma(image, self.color_space) if self.test_y_channel else image
        return downsampled(image) if self.downsample else image
