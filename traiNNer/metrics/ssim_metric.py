"""SSIM: structural similarity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from traiNNer.metrics.comparison import CropBorder, Improves, TestYChannel, bands, cropped, describe
from traiNNer.utils.registry import METRICS

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window, px."""

_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_TAPS = [math.exp(-((place - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for place in range(WINDOW)]


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """SSIM at each place of two images of levels in [0, 255]; (B, C, H, W) becomes (B, C, H - 10, W - 10)."""
    mean_1, mean_2 = _blur(first), _blur(second)
    product, squares = mean_1 * mean_2, mean_1.square() + mean_2.square()
    covariance = _blur(first * second) - product
    variances = _blur(first.square() + second.square()) - squares
    return (2 * product + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))


def _blur(image: Tensor) -> Tensor:
    """Means under the window, only where it lies within the image.

    Sums of shifted images: in float64 eight times as fast on a CPU as convolutions, which have no fast kernel there.
    """
    for axis in (-1, -2):
        size = image.shape[axis] - WINDOW + 1
        total = image.narrow(axis, 0, size) * (_TAPS[0] / sum(_TAPS))
        for place in range(1, WINDOW):
            total.add_(image.narrow(axis, place, size), alpha=_TAPS[place] / sum(_TAPS))
        image = total
    return image


@METRICS.register("ssim", "calculate_ssim")
class SSIM:
    """Mean over channels and pixels of a b, with a = (2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1) and
    b = (2 sigma_xy + C2) / (sigma_x^2 + sigma_y^2 + C2).

    Local means and (co)variances under an 11x11 Gaussian of sigma 1.5, only where the window lies within the image;
    C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2; float64 on 8-bit levels.
    Shapes: output and target (1, 3, H, W), RGB in [0, 1], at least 11 px after the crop. Range: [-1, 1], higher is
    better, 1 for identical images.
    Reference: Wang et al. 2004; BasicSR `metrics/psnr_ssim.py:calculate_ssim`, equal to 1e-4.

    ```yaml
    ssim: {type: calculate_ssim, crop_border: 4, test_y_channel: true}
    ```
    """

    images_only = True

    def __init__(
        self, *, crop_border: CropBorder = 0, test_y_channel: TestYChannel = False, better: Improves = "higher"
    ) -> None:
        self.crop_border, self.test_y_channel, self.better = crop_border, test_y_channel, better
        self.minimum = WINDOW + 2 * crop_border

    def __call__(self, output: Tensor, target: Tensor) -> float:
        """SSIM of one image pair."""
        output, target = cropped(output, target, self.crop_border, minimum=WINDOW)
        maps = (ssim_map(x, y) for x, y in bands(output, target, self.test_y_channel, WINDOW))
        sums, places = zip(*((each.sum(), each.numel()) for each in maps), strict=True)
        return torch.stack(sums).sum().item() / sum(places)  # synchronizes host and device

    def describe(self) -> str:
        """Channel, crop and range for the log."""
        return describe("SSIM", self.crop_border, self.test_y_channel)
