"""Colours of sRGB images as CIE and Oklab measure them.

All of it is differentiable and finite outside [0, 1] too, so that a network's output needs no clamping. Channels are
mixed with Python's numbers: no tensor has to be sent to the device, and no matrix product is rounded to TF32.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Y per linear R, G and B (BT.709's primaries)."""

_EPSILON, _KAPPA = 216 / 24389, 24389 / 27
"""Where L* turns from a line into a cube root, and the line's slope (CIE 15:2004)."""

_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_CHROMA = ((1.9779984951, -2.4285922050, 0.4505937099), (0.0259040371, 0.7827717662, -0.8086757660))

_TOE = 1 / 255 / 12.92
"""Linear value of the darkest 8-bit grey; below it Oklab's cube root goes on as its tangent, for its slope at 0."""


def mix(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """The weighted sum of the channels of (B, 3, H, W), as (B, 1, H, W)."""
    red, green, blue = (weight * image[:, index : index + 1] for index, weight in enumerate(weights))
    return red + green + blue


def linear_rgb(image: Tensor) -> Tensor:
    """Linear light of sRGB values, of the same shape; values below 0 lie on the line that goes through 0.

    Source: IEC 61966-2-1.
    """
    curve = ((image.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(image <= 0.04045, image / 12.92, curve)


def lightness_of(luminance: Tensor) -> Tensor:
    """CIE L* / 100 of relative luminance, of the same shape; below 0 it goes on as a line.

    Source: CIE 15:2004, L* = 116 Y^(1/3) - 16, and (29/3)^3 Y up to Y = (6/29)^3.
    """
    root = 1.16 * luminance.clamp(min=_EPSILON) ** (1 / 3) - 0.16
    return torch.where(luminance <= _EPSILON, luminance * (_KAPPA / 100), root)


def lightness(image: Tensor) -> Tensor:
    """CIE L* / 100 of sRGB images (B, 3, H, W), as (B, 1, H, W): 0 for black, 1 for white."""
    return lightness_of(mix(linear_rgb(image), LUMINANCE))


def oklab_chroma(image: Tensor) -> Tensor:
    """Oklab's a and b of sRGB images (B, 3, H, W), as (B, 2, H, W), within [-0.32, 0.28] for values in [0, 1].

    Source: Ottosson, "A perceptual color space for image processing", 2020. Below the light of the darkest 8-bit grey
    the cube root goes on as its tangent.
    """
    linear = linear_rgb(image)
    roots = torch.cat([_cube_root(mix(linear, weights)) for weights in _LMS], dim=1)
    return torch.cat([mix(roots, weights) for weights in _CHROMA], dim=1)


def _cube_root(light: Tensor) -> Tensor:
    root = light.clamp(min=_TOE) ** (1 / 3)
    return root + (light - _TOE).clamp(max=0) / (3 * _TOE ** (2 / 3))
