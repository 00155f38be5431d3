"""HSLuv (Boronine, 2012; hsluv.org, revision 4): CIE LCh(uv) whose chroma is counted in parts of what sRGB can show."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from traiNNer.utils.cie import lightness_of, linear_rgb, mix

_X = (0.41239079926595, 0.35758433938387, 0.18048078840183)
_Y = (0.21263900587151, 0.71516867876775, 0.072192315360733)
_Z = (0.019330818715591, 0.11919477979462, 0.95053215224966)
_WHITE_U, _WHITE_V = 0.19783000664283, 0.46831999493879

_BLACK = 1e-3
"""X + 15 Y + 3 Z below which colours fade to grey; the darkest colour of 8 bits, (1, 0, 0), has 1.1e-3."""
_WHITE = 1e-4
"""1 - Y below which colours fade to grey; the whitest colour of 8 bits, (255, 255, 254), has 6e-4."""


class HSLuv(NamedTuple):
    """An image in HSLuv; every part is (B, 1, H, W)."""

    u: Tensor
    """With `v` a vector whose direction is the hue; its length has no meaning, and for grey it is 0."""
    v: Tensor
    saturation: Tensor
    """0 for grey, 1 for the most colourful that sRGB has of this hue and lightness."""
    lightness: Tensor
    """CIE L* / 100; outside [0, 1] where the image is."""

    def hue(self) -> Tensor:
        """The hue, degrees in [0, 360); its gradient has a pole at grey."""
        return torch.rad2deg(torch.atan2(self.v, self.u)) % 360


def rgb_to_hsluv(image: Tensor) -> HSLuv:
    """sRGB images (B, 3, H, W) in HSLuv, with finite gradients at grey, black and white.

    Saturation needs no hue here. At one lightness, (linear channel - bound) v' is linear in the chromaticities
    (u', v'), so that the way from the white point to the gamut's edge, where a channel is 0 or 1, is used up by

        1 - v' / v'_white min(lowest channel / Y, (1 - highest channel) / (1 - Y)).

    Hue and saturation are those of the image clamped to [0, 1], lightness goes on outside. Where colours fade, at
    black and white, HSLuv itself jumps: black and white have saturation 0, what is next to them up to 1.
    """
    linear = linear_rgb(image.clamp(0, 1))
    x, y, z = mix(linear, _X), mix(linear, _Y), mix(linear, _Z)
    total = x + 15 * y + 3 * z
    blackness = (_BLACK - total).clamp(min=0)
    whiteness = (_WHITE - (1 - y)).clamp(min=0)
    brightest = (1 - linear.amax(dim=1, keepdim=True) + whiteness) / (1 - y).clamp(min=_WHITE)
    room = torch.minimum(linear.amin(dim=1, keepdim=True), y * brightest)
    return HSLuv(
        u=4 * x - _WHITE_U * total,
        v=9 * y - _WHITE_V * total,
        saturation=1 - (room * (9 / _WHITE_V) + blackness) / total.clamp(min=_BLACK),
        lightness=lightness_of(mix(linear_rgb(image), _Y)),
    )
