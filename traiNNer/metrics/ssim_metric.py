"""SSIM: structural similarity."""

from __future__ import annotations

from torch import Tensor

from traiNNer.metrics.comparison import CropBorder, Improves, TestYChannel, comparable, describe
from traiNNer.utils.registry import METRICS

WINDOW = 11
"""Side of the Gaussian window, px; its sigma is 1.5 px."""


@METRICS.register("ssim", "calculate_ssim")
class SSIM:
    """Mean over channels and pixels of a b, with a = (2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1) and
    b = (2 sigma_xy + C2) / (sigma_x^2 + sigma_y^2 + C2).

    Local means and (co)variances under an 11x11 Gaussian of sigma 1.5, only where the window lies within the image;
    C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2; float64 on 8-bit levels.
    Shapes: output and target (1, 3, H, W), RGB in [0, 1], at least 11 px after the crop. Range: [-1, 1], higher is
    better, 1 for identical images.
    Reference: Wang et al. 2004; BasicSR `metrics/psnr_ssim.py:calculate_ssim`, equal to 1e-4; computed by kornia.

    ```yaml
    ssim: {type: calculate_ssim, crop_border: 4, test_y_channel: true}
    ```
    """

    def __init__(
        self, *, crop_border: CropBorder = 0, test_y_channel: TestYChannel = False, better: Improves = "higher"
    ) -> None:
        self.crop_border, self.test_y_channel, self.better = crop_border, test_y_channel, better

    def __call__(self, output: Tensor, target: Tensor) -> float:
        """SSIM of one image pair."""
        from kornia.metrics import ssim

        output, target = comparable(output, target, self.crop_border, self.test_y_channel, minimum=WINDOW)
        values = ssim(output, target, WINDOW, max_val=255.0, padding="valid")
        return values.mean().item()  # synchronizes host and device

    def describe(self) -> str:
        """Channel, crop and range for the log."""
        return describe("SSIM", self.crop_border, self.test_y_channel)
