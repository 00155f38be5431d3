"""Luma: the brightness of RGB images, as the colour spaces of image quality measures define it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

LumaSpace = Literal["yiq", "ycbcr", "lhm"]
"""yiq: Y of NTSC's YIQ; ycbcr: BT.601's in MATLAB's form, with footroom, 16/255 to 235/255; lhm: L of LHM."""

LUMA_WEIGHTS: dict[LumaSpace, tuple[float, float, float]] = {
    "yiq": (0.299, 0.587, 0.114),
    "ycbcr": (65.481 / 255, 128.553 / 255, 24.966 / 255),
    "lhm": (0.2989, 0.587, 0.114),
}
"""Luma per unit of R, G and B."""

LUMA_OFFSET: dict[LumaSpace, float] = {"yiq": 0.0, "ycbcr": 16 / 255, "lhm": 0.0}
"""Luma of black for images in [0, 1]."""


def luma(image: Tensor, space: LumaSpace = "yiq") -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] becomes (B, 1, H, W); values outside [0, 1] are converted like others."""
    weights = LUMA_WEIGHTS[space]
    red, green, blue = (image[:, channel : channel + 1] * weights[channel] for channel in range(3))
    return red + green + blue + LUMA_OFFSET[space]
