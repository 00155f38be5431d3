"""Features of pretrained torchvision networks, for the losses that compare images by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from traiNNer.utils.errors import ConfigError, Problem, nearest
from traiNNer.utils.pretrained import torchvision_features

Pretrained = Annotated[
    bool, Field(description="ImageNet weights; false: random ones with a fixed seed, the same in every run")
]
WeightsPath = Annotated[
    str | None, Field(description="file with the network's torchvision weights, which stands in for the download")
]
LayerWeight = Annotated[float, Field(ge=0)]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

VGG: TypeAlias = Literal["vgg16", "vgg19"]

_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""By block; each convolution is followed by a ReLU, each block by a max pooling."""


def vgg_layers(network: VGG) -> list[str]:
    """Names of the modules of a VGG's `features` in order: conv1_1, relu1_1, conv1_2, relu1_2, pool1, ..."""
    names: list[str] = []
    for block, count in enumerate(_CONVOLUTIONS[network], start=1):
        for number in range(1, count + 1):
            names += [f"conv{block}_{number}", f"relu{block}_{number}"]
        names.append(f"pool{block}")
    return names


def _known(name: str) -> str:
    names = vgg_layers("vgg19")
    if name not in names:
        raise ValueError(f"a layer of VGG, conv1_1 to relu5_4 or pool1 to pool5{nearest(name, names)}")
    return name


VGGLayer = Annotated[str, AfterValidator(_known)]


def vgg_weights(weights: dict[str, float], network: VGG) -> dict[str, float]:
    """The layers that have a weight, from the first to the last.

    Raises:
        ConfigError: the network has no such layer, or none has a weight.
    """
    names = vgg_layers(network)
    unknown = next((name for name in weights if name not in names), None)
    if unknown is not None:
        message = f"{network} has no layer {unknown!r}{nearest(unknown, names)}"
        raise ConfigError(Problem(key=f"layer_weights.{unknown}", message=message))
    if not any(weights.values()):
        raise ConfigError(Problem(key="layer_weights", message="found only zeros; accepted: a layer that has a weight"))
    return {name: weights[name] for name in names if weights.get(name)}


class TorchvisionFeatures(nn.Module):
    """Results of some modules of a torchvision network's `features`, for images of (B, 3, H, W) in [0, 1].

    The network never changes: no gradient, no state to save, always in evaluation mode. It is cut off behind the last
    module asked for. It computes in the images' precision, in float32 at least.

    Args:
        network: torchvision's name.
        positions: the modules whose results are asked for.
        pretrained: ImageNet weights, or random ones.
        weights_path: file that stands in for the download.
        mean: subtracted from R, G and B.
        std: by which R, G and B are divided then.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str,
        positions: Sequence[int],
        *,
        pretrained: bool,
        weights_path: str | None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self._positions = frozenset(positions)
        depth = max(positions) + 1
        self.layers = torchvision_features(network, depth, pretrained=pretrained, weights_path=weights_path)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> TorchvisionFeatures:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The results of the modules asked for, in the network's order."""
        precision = torch.promote_types(images.dtype, torch.float32)
        if precision != self.mean.dtype:
            weights = {name: value.to(precision) for name, value in self.named_buffers()}
            return torch.func.functional_call(self, weights, (images,))
        values, found = (images.to(precision) - self.mean) / self.std, list[Tensor]()
        for position, layer in enumerate(self.layers):
            values = layer(values)
            if position in self._positions:
                found.append(values)
        return found

    def pairs(self, output: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The features of both images, layer by layer; those of the target without a gradient."""
        with torch.no_grad():
            wanted = self(target)
        return list(zip(self(output), wanted, strict=True))
