"""PSNR: peak signal-to-noise ratio."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from traiNNer.metrics.comparison import LUMA, CropBorder, Improves, TestYChannel, bands, cropped, describe
from traiNNer.utils.registry import METRICS


@METRICS.register("psnr", "calculate_psnr")
class PSNR:
    """10 log10(255^2 / MSE) in dB, the MSE over all channels and pixels of both images in 8-bit levels.

    Shapes: output and target (1, 3, H, W), RGB in [0, 1]. Range: [0, inf) dB, higher is better. Identical images, for
    which BasicSR returns infinity, count as if one sample of one channel differed by one level (blue, for luma):
    48.13 + 10 log10(samples) dB, 20.18 dB more for luma. One changed pixel never scores more, and the average over a
    data set stays finite.
    Reference: BasicSR `metrics/psnr_ssim.py:calculate_psnr`, equal to 1e-4 dB.

    ```yaml
    psnr: {type: calculate_psnr, crop_border: 4, test_y_channel: true}
    ```
    """

    images_only = True

    def __init__(
        self, *, crop_border: CropBorder = 0, test_y_channel: TestYChannel = False, better: Improves = "higher"
    ) -> None:
        self.crop_border, self.test_y_channel, self.better = crop_border, test_y_channel, better
        self.minimum = 1 + 2 * crop_border

    def __call__(self, output: Tensor, target: Tensor) -> float:
        """PSNR of one image pair, dB."""
        output, target = cropped(output, target, self.crop_border)
        squares = [(x - y).square().sum() for x, y in bands(output, target, self.test_y_channel)]
        samples = output.numel() // (3 if self.test_y_channel else 1)
        mse = torch.stack(squares).sum().item() / samples  # synchronizes host and device
        return 10 * math.log10(255**2 / (mse or self._smallest_mse(samples)))

    def _smallest_mse(self, samples: int) -> float:
        step = min(LUMA) if self.test_y_channel else 1.0
        return step**2 / samples

    def describe(self) -> str:
        """Channel, crop and range for the log."""
        return describe("PSNR in dB", self.crop_border, self.test_y_channel)
