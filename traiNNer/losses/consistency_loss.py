"""Consistency of lightness and colour: CIE L* of blurred images, and Oklab's chroma."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.losses.chc_loss import clipped, cosine_distance
from traiNNer.utils.cie import lightness, oklab_chroma
from traiNNer.utils.registry import LOSSES


def odd(value: int) -> int:
    """The value, if it is odd.

    Raises:
        ValueError: it is even; a kernel of so many pixels has no centre.
    """
    if value % 2 == 0:
        raise ValueError("an odd number is needed")
    return value


def blurred(image: Tensor, kernel_size: int, sigma: float) -> Tensor:
    """(B, C, H, W) convolved with a Gaussian of `sigma` px cut to `kernel_size` px; edges are reflected."""
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(image, kernel_size=[kernel_size] * 2, sigma=[sigma] * 2)


def clipped_mean(output: Tensor, target: Tensor, loss_lambda: float) -> Tensor:
    """`clipped` with its default bounds, the mean over all elements, a scalar."""
    return clipped(output, target, loss_lambda=loss_lambda).mean()


@LOSSES.register("consistencyloss")
class ConsistencyLoss(Loss):
    """C(L, brightness L') + C(ab, saturation ab') + cosim_weight (D(L, brightness L') + D(ab, saturation ab')).

    L is CIE L* / 100 of the blurred output, ab its Oklab chroma + 0.5, primes mark the target's (ab' = 0.5 + saturation
    times its chroma); C is `criterion`, D the mean cosine distance, of the two components of ab in each pixel and of
    the lightness in each column. A brightness below 1 counters networks that brighten.

    traiNNer-redux: the name is the fork's, which first clamps images to [1/255, 1] and so has no gradient outside, nor
    for black; its cosine distance of L is taken over one number and always 0, here it is neosr's, of columns.

    Shapes: `output` and `target` (B, 3, H, W). Range: [0, inf), smallest for a lightness of `brightness` times the
    target's and a chroma of `saturation` times the target's, thus not at the target.
    Reference: `consistency_loss` of neosr; CIE 15:2004 (L*); Ottosson, "A perceptual color space for image
    processing", 2020 (Oklab).

    ```yaml
    - type: consistencyloss
      loss_weight: 0.25
      saturation: 1.0
      brightness: 0.9
    ```
    """

    kind = "color"
    channels = 3

    def __init__(
        self,
        *,
        criterion: Annotated[
            Literal["l1", "huber", "chc"], Field(description="how maps are compared; huber has a delta of 1")
        ] = "chc",
        blur: Annotated[bool, Field(description="blur both images before their lightness is taken")] = True,
        blur_kernel_size: Annotated[
            int, Field(ge=3, le=63, description="side of the blur's kernel, px, odd"), AfterValidator(odd)
        ] = 21,
        blur_sigma: Annotated[float, Field(gt=0, description="standard deviation of the blur, px")] = 3.0,
        saturation: Annotated[float, Field(gt=0, description="factor of the target's chroma")] = 1.0,
        brightness: Annotated[float, Field(gt=0, description="factor of the target's lightness")] = 0.9,
        cosim: Annotated[bool, Field(description="add the cosine distances")] = True,
        cosim_weight: Annotated[float, Field(ge=0, description="weight of the cosine distances")] = 0.5,
        chc_lambda: Annotated[float, Field(ge=0, description="weight of the cosine distance within chc")] = 0.012,
    ) -> None:
        super().__init__()
        self.criterion: Callable[[Tensor, Tensor], Tensor] = {
            "l1": F.l1_loss,
            "huber": F.huber_loss,
            "chc": partial(clipped_mean, loss_lambda=chc_lambda),
        }[criterion]
        self.blur = (blur_kernel_size, blur_sigma) if blur else None
        self.saturation, self.brightness = saturation, brightness
        self.cosim_weight = cosim_weight if cosim else 0.0
        self.minimum = None
        if saturation == brightness == 1:
            self.minimum = 2 / 255 if criterion == "chc" else 0.0
        self.batch_coupled = criterion == "chc" and chc_lambda > 0

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        light, target_light = self._lightness(output), self._lightness(target) * self.brightness
        chroma, target_chroma = oklab_chroma(output) + 0.5, oklab_chroma(target) * self.saturation + 0.5
        value = self.criterion(light, target_light) + self.criterion(chroma, target_chroma)
        if self.cosim_weight == 0:
            return value
        distance = cosine_distance(light, target_light) + cosine_distance(chroma, target_chroma)
        return value + self.cosim_weight * distance

    def _lightness(self, image: Tensor) -> Tensor:
        """(B, H, W): axis 1, that of the cosine, is a column."""
        return lightness(image if self.blur is None else blurred(image, *self.blur))[:, 0]
