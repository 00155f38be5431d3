"""Difference of hue, saturation and lightness in HSLuv."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.losses.charbonnier_loss import charbonnier
from traiNNer.losses.consistency_loss import blurred
from traiNNer.utils.hsluv import HSLuv, rgb_to_hsluv
from traiNNer.utils.registry import LOSSES

_NEAR = 0.1
"""Saturations up to here are grey, lightnesses up to here black, and from 1 less this white."""

Weight = Annotated[float, Field(ge=0, description="weight of this part")]


def hue_difference(first: HSLuv, second: HSLuv) -> Tensor:
    """How different the hues of two images are, (B, 1, H, W) in [0, 1].

    The angle between the hues / 180 degrees. Between two greys, blacks or whites it is 0; between a grey and a colour
    it is the larger saturation.
    """
    grey, other_grey = first.saturation < _NEAR, second.saturation < _NEAR
    coloured = ~grey & ~other_grey
    sine = torch.where(coloured, first.u * second.v - first.v * second.u, 0)
    cosine = torch.where(coloured, first.u * second.u + first.v * second.v, 1)  # (0, 0) has no angle
    angle = torch.atan2(sine, cosine).abs() / math.pi
    difference = torch.where(grey ^ other_grey, torch.maximum(first.saturation, second.saturation), angle)
    black = (first.lightness < _NEAR) & (second.lightness < _NEAR)
    white = (first.lightness > 1 - _NEAR) & (second.lightness > 1 - _NEAR)
    return difference.masked_fill(black | white, 0)


def visibility(colour: HSLuv) -> Tensor:
    """How much saturation matters, (B, 1, H, W): 0.5 at medium lightness, 0 at black and white, linear between."""
    return torch.minimum(colour.lightness, 1 - colour.lightness).clamp(0, 0.5)


@LOSSES.register("hsluvloss")
class HSLuvLoss(Loss):
    """hue_weight mean(h) + saturation_weight mean(w C(S, S')) + lightness_weight mean(C(L, L')).

    h is the angle between the hues / 180 degrees (greys, blacks and whites have none: see `hue_difference`), S and L
    are saturation and lightness in [0, 1], w = min(L, 1 - L) + min(L', 1 - L'), C is `criterion`. Outside [0, 1] an
    output is judged by its lightness, and for hue and saturation as if clamped.

    traiNNer-redux: there, saturation is too low for many hues (edges of the gamut are overlooked), hues of all outputs
    lighter than 0.9 count as right (a wrong sign), outputs outside [0, 1] are clamped, which leaves them without a
    gradient, and gradients of grey may be NaN; what its `blur_strength` means was not at hand.

    Shapes: `output` and `target` (B, 3, H, W). Range: [0, inf), 0 where they are equal (below 1e-6 for charbonnier).
    Reference: Boronine, "HSLuv", hsluv.org, revision 4.

    ```yaml
    - type: hsluvloss
      loss_weight: 1.0
      hue_weight: 0.5
      saturation_weight: 0.25
      lightness_weight: 0.25
    ```
    """

    kind = "color"
    channels = 3

    def __init__(
        self,
        *,
        hue_weight: Weight = 1 / 3,
        saturation_weight: Weight = 1 / 3,
        lightness_weight: Weight = 1 / 3,
        criterion: Annotated[
            Literal["l1", "l2", "charbonnier"], Field(description="how saturation and lightness are compared")
        ] = "l1",
        downscale_factor: Annotated[
            int, Field(ge=1, le=16, description="both images are reduced bicubically by this factor first")
        ] = 1,
        blur_strength: Annotated[
            float, Field(ge=0, le=10, description="standard deviation of a Gaussian blur before that, px; 0: none")
        ] = 0,
    ) -> None:
        super().__init__()
        self.weights = {"hue": hue_weight, "saturation": saturation_weight, "lightness": lightness_weight}
        self.compare: Callable[[Tensor, Tensor], Tensor] = {
            "l1": partial(F.l1_loss, reduction="none"),
            "l2": partial(F.mse_loss, reduction="none"),
            "charbonnier": charbonnier,
        }[criterion]
        self.downscale_factor, self.blur_strength = downscale_factor, blur_strength

    def forward(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The unweighted loss as the scalars of hue, saturation and lightness, whose sum it is."""
        ours, theirs = self._hsluv(output), self._hsluv(target)
        maps = {
            "hue": hue_difference(ours, theirs),
            "saturation": self.compare(ours.saturation, theirs.saturation) * (visibility(ours) + visibility(theirs)),
            "lightness": self.compare(ours.lightness, theirs.lightness),
        }
        return {name: self.weights[name] * values.mean() for name, values in maps.items()}

    def _hsluv(self, image: Tensor) -> HSLuv:
        if self.blur_strength > 0:
            image = blurred(image, 2 * math.ceil(3 * self.blur_strength) + 1, self.blur_strength)
        if self.downscale_factor > 1:
            size = [max(1, side // self.downscale_factor) for side in image.shape[-2:]]
            image = F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)
        return rgb_to_hsluv(image)
