"""Contextual loss: images that need not be aligned, compared as sets of features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from traiNNer.losses.base import Loss
from traiNNer.losses.features import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VGG,
    LayerWeight,
    Pretrained,
    TorchvisionFeatures,
    VGGLayer,
    WeightsPath,
    vgg_layers,
    vgg_weights,
)
from traiNNer.utils.registry import LOSSES

Distance = Literal["cosine", "l1", "l2"]

_SPATIAL_SHARE = 0.1
"""Part of the similarity that the bilateral form takes from the positions."""


def distances(output: Tensor, target: Tensor, kind: Distance = "cosine") -> Tensor:
    """d_ij between feature i of the output and feature j of the target.

    cosine: (1 - cos) / 2 of the features less the target's mean feature; l1: sum |x_i - y_j|; l2: sum (x_i - y_j)^2.

    Args:
        output: features x_i, (N, C).
        target: features y_j, (M, C).
        kind: which distance.

    Returns:
        (N, M), in [0, 1] for cosine, else in [0, inf).

    Source: Mechrez et al., ECCV 2018, equation 2 and the authors' code, which has the half.
    """
    if kind == "l1":
        return torch.cdist(output, target, p=1.0)  # without the (N, M, C) differences
    if kind == "l2":
        squares = output.square().sum(dim=1)[:, None] + target.square().sum(dim=1) - 2 * output @ target.T
        return squares.clamp(min=0)
    mean = target.mean(dim=0)
    x, y = (
        (values - mean) / ((values - mean).square().sum(dim=1, keepdim=True) + 1e-12).sqrt()
        for values in (output, target)
    )
    return ((1 - x @ y.T) / 2).clamp(min=0)


def similarities(distance: Tensor, band_width: float = 0.5) -> Tensor:
    """CX_ij = w_ij / sum_k w_ik with w_ij = exp((1 - d_ij / (min_k d_ik + 1e-5)) / h).

    The 1, b in some programs, cancels, so that this is a softmax over j.

    Args:
        distance: d_ij, (N, M).
        band_width: h.

    Returns:
        (N, M), rows of sum 1.

    Source: Mechrez et al., "The Contextual Loss for Image Transformation with Non-Aligned Data", ECCV 2018, equations 2
    to 4.
    """
    relative = distance / (distance.amin(dim=1, keepdim=True) + 1e-5)
    return (-relative / band_width).softmax(dim=1)


def contextual(similarity: Tensor) -> Tensor:
    """-log(mean_j max_i CX_ij), equations 1 and 5 of Mechrez et al., ECCV 2018.

    Args:
        similarity: CX_ij, (N, M).

    Returns:
        A scalar in [0, log N], 0 where every target feature is some output feature's only match.
    """
    return -similarity.amax(dim=0).mean().log()


@LOSSES.register("contextualloss")
class ContextualLoss(Loss):
    """Mean over the images of sum_l w_l -log(mean_j max_i CX_ij), CX the similarity of the features of layer l of VGG.

    CX_ij is the softmax over j of -d_ij / (h min_k d_ik) for features i of the output and j of the target, h the band
    width. symmetric: mean of this and of the loss with both images exchanged. bilateral: CX is 0.9 of it and 0.1 of the
    similarity of the positions, so that features should be found near their place.

    Memory for one image and layer grows with the square of the number of features, (H W)^2; more than `max_1d_size`^2
    are thinned out evenly, the same in both images.

    Shapes: `output` and `target` (B, 3, H, W) in [0, 1], at least 16 px. Range: [0, inf), 0 for images without
    repeated features that are equal. The network never changes: there is no state to save.
    Reference: Mechrez et al., "The Contextual Loss for Image Transformation with Non-Aligned Data", ECCV 2018,
    equations 1 to 5; bilateral after Zhang et al., "Zoom to Learn, Learn to Zoom", CVPR 2019.
    traiNNer-redux: the batch's mean feature; features thinned out at random, unlike in both; bilateral by rows.

    ```yaml
    - type: contextualloss
      loss_weight: 0.1
      layer_weights: {conv3_2: 1.0, conv4_2: 1.0}
      distance_type: cosine
    ```
    """

    kind = "perceptual"
    channels = 3

    def __init__(
        self,
        *,
        layer_weights: Annotated[
            dict[VGGLayer, LayerWeight] | None,
            Field(min_length=1, description="weights of layers by name; default: conv3_2 and conv4_2 x 1"),
        ] = None,
        crop_quarter: Annotated[bool, Field(description="compare each quarter of the features with its own")] = False,
        max_1d_size: Annotated[int, Field(ge=2, description="root of the largest number of features compared")] = 100,
        distance_type: Annotated[Distance, Field(description="distance between features")] = "cosine",
        b: Annotated[
            float, Field(description="offset of equation 3, which cancels; taken from files that have it")
        ] = 1.0,
        band_width: Annotated[float, Field(gt=0, description="h: the smaller, the fewer features match one")] = 0.5,
        use_vgg: Annotated[bool, Field(description="false: compare R, G, B of pixels instead of features")] = True,
        net: Annotated[VGG, Field(description="network")] = "vgg19",
        calc_type: Annotated[
            Literal["regular", "symmetric", "symetric", "bilateral"], Field(description="form of the loss")
        ] = "regular",
        z_norm: Annotated[
            bool, Field(description="normalize images by ImageNet's mean and deviation; false: to [-1, 1]")
        ] = False,
        pretrained: Pretrained = True,
        weights_path: WeightsPath = None,
    ) -> None:
        super().__init__()
        self.crop_quarter, self.most = crop_quarter, max_1d_size**2
        self.distance_type: Distance = distance_type
        self.band_width, self.calc_type = band_width, calc_type
        self.features, self.weights = None, [1.0]
        if use_vgg:
            weights = vgg_weights(layer_weights or {"conv3_2": 1.0, "conv4_2": 1.0}, net)
            self.weights = list(weights.values())
            self.features = TorchvisionFeatures(
                net,
                [vgg_layers(net).index(name) for name in weights],
                pretrained=pretrained,
                weights_path=weights_path,
                mean=IMAGENET_MEAN if z_norm else (0.5, 0.5, 0.5),
                std=IMAGENET_STD if z_norm else (0.5, 0.5, 0.5),
            )

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        pairs = [(output, target)] if self.features is None else self.features.pairs(output, target)
        return torch.stack(
            [weight * self._layer(*pair) for weight, pair in zip(self.weights, pairs, strict=True)]
        ).sum()

    def _layer(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over images and quarters, one by one and computed again for the gradient: only one's matrices exist."""
        values = [
            checkpoint(self._compare, x, y, use_reentrant=False, preserve_rng_state=False)
            for image in zip(output, target, strict=True)
            for x, y in (zip(*map(_quarters, image), strict=True) if self.crop_quarter else (image,))
        ]
        return torch.stack(values).mean()

    def _compare(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of two feature maps (C, H, W)."""
        (x, places), (y, _) = (self._set(features) for features in (output, target))
        distance = distances(x, y, self.distance_type)
        similarity = similarities(distance, self.band_width)
        if self.calc_type == "bilateral":
            near = similarities(distances(places, places, "l2"), self.band_width)
            similarity = (1 - _SPATIAL_SHARE) * similarity + _SPATIAL_SHARE * near
        if self.calc_type not in ("symmetric", "symetric"):
            return contextual(similarity)
        back = similarities(distances(y, x, self.distance_type), self.band_width)
        return (contextual(similarity) + contextual(back)) / 2

    def _set(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The features (N, C) of a map (C, H, W), and their places in (0, 1) x (0, 1), (N, 2)."""
        _, height, width = features.shape
        chosen = torch.arange(height * width, device=features.device)
        values = features.flatten(1)
        if len(chosen) > self.most:
            chosen = chosen[: self.most] * len(chosen) // self.most
            values = values[:, chosen]
        places = torch.stack([chosen // width / (height + 1), chosen % width / (width + 1)], dim=1)
        return values.T, places.to(features.dtype)


def _quarters(features: Tensor) -> Iterator[Tensor]:
    height, width = features.shape[1] // 2, features.shape[2] // 2
    for rows in (slice(height), slice(height, None)):
        for columns in (slice(width), slice(width, None)):
            yield features[:, rows, columns]
