"""Clipped pseudo-Huber with cosine similarity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.losses.charbonnier_loss import charbonnier
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import LOSSES

SHORTEST = 1 / 255
"""Vectors shorter than this (of the colours of 8 bits: black) are taken to have this length, because a cosine has an
endless slope next to a vector of length 0."""


def cosine_distance(output: Tensor, target: Tensor) -> Tensor:
    """1 - mean cosine similarity of vectors along axis 1, a scalar; 1 counts for vectors of length 0.

    Source: Marnerides et al., "ExpandNet", Computer Graphics Forum 2018.
    """
    return 1 - F.cosine_similarity(output, target, dim=1, eps=SHORTEST).mean()


def clipped(
    output: Tensor,
    target: Tensor,
    *,
    criterion: Literal["l1", "huber"] = "huber",
    loss_lambda: float = 0.0,
    clip_min: float = 1 / 255,
    clip_max: float = 254 / 255,
) -> Tensor:
    """clamp(d + loss_lambda * cosine distance, clip_min, clip_max) per element, of the inputs' shape.

    d is |output - target|, or sqrt((output - target)^2 + 1e-12) for `huber`; the cosine distance is one number, the
    mean over the batch.
    Source: `chc` of neosr, after the clipped L1 of Shan's entry to the AIM 2020 challenge on real image
    super-resolution.
    """
    values = (output - target).abs() if criterion == "l1" else charbonnier(output, target)
    if loss_lambda:
        values = values + loss_lambda * cosine_distance(output, target)
    return values.clamp(clip_min, clip_max)


@LOSSES.register("chcloss")
class CHCLoss(Loss):
    """mean clamp(d + lambda (1 - mean cos(output, target)), clip_min, clip_max), d = sqrt((output - target)^2 + 1e-12).

    Elements that are well within a level of 8 bits, or far off, have no gradient; the cosine is of RGB vectors.

    traiNNer-redux: the name is the fork's; the same but for pixels darker than 1/255, next to which the cosine has an
    endless slope there.

    Shapes: `output` and `target` (B, C, H, W). Range: [clip_min, clip_max] for mean, smallest where they are equal.
    Reference: `chc` of neosr; Marnerides et al., "ExpandNet", Computer Graphics Forum 2018 (cosine term).

    ```yaml
    - type: chcloss
      loss_weight: 1.0
      criterion: huber
      loss_lambda: 0.02
    ```
    """

    kind = "pixel"
    images_only = True

    def __init__(
        self,
        *,
        reduction: Annotated[Literal["mean", "sum"], Field(description="mean or sum over all elements")] = "mean",
        criterion: Annotated[Literal["l1", "huber"], Field(description="|d|, or sqrt(d^2 + 1e-12)")] = "huber",
        loss_lambda: Annotated[float, Field(ge=0, description="weight of the cosine distance")] = 0.0,
        clip_min: Annotated[float, Field(ge=0, description="elements below have no gradient, intensity")] = 1 / 255,
        clip_max: Annotated[float, Field(gt=0, description="elements above have no gradient, intensity")] = 254 / 255,
    ) -> None:
        super().__init__()
        if clip_min >= clip_max:
            message = f"found {clip_max:g}; accepted: more than clip_min, {clip_min:g}"
            raise ConfigError(Problem(key="clip_max", message=message))
        self.reduction, self.loss_lambda = reduction, loss_lambda
        self.sums_images = reduction == "sum"
        self.criterion: Literal["l1", "huber"] = criterion
        self.clip_min, self.clip_max = clip_min, clip_max
        self.minimum = max(clip_min, 0.0 if criterion == "l1" else 1e-6) if reduction == "mean" else None
        self.batch_coupled = loss_lambda > 0

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        values = clipped(
            output,
            target,
            criterion=self.criterion,
            loss_lambda=self.loss_lambda,
            clip_min=self.clip_min,
            clip_max=self.clip_max,
        )
        return values.mean() if self.reduction == "mean" else values.sum()
