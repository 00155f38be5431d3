"""Random weights of torchvision's networks, drawn once, and VGG computed from them by plain functions in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def state(network: str) -> dict[str, Tensor]:
    """A state dict as torchvision publishes it, with the weights of `features` alone."""
    with torch.device("meta"):
        shapes = torchvision.models.get_model(network, weights=None).state_dict()
    generator = torch.Generator().manual_seed(5)
    drawn: dict[str, Tensor] = {}
    for name, value in shapes.items():
        if name.startswith("features."):
            noise = torch.randn(value.shape, generator=generator)
            fan_in = max(1, value[0].numel())
            drawn[name] = noise * (2 / fan_in) ** 0.5 if value.ndim > 1 else noise * 0.1 + float("weight" in name)
    return drawn


def features(network: str) -> nn.Sequential:
    """torchvision's own `features` with these weights, in float64."""
    with torch.device("meta"):
        found: Any = torchvision.models.get_model(network, weights=None).features
    found.load_state_dict(
        {name.removeprefix("features."): value for name, value in state(network).items()}, assign=True
    )
    return found.double().eval().requires_grad_(False)


def vgg(network: str, image: Tensor, mean: Any = MEAN, std: Any = STD) -> dict[str, Tensor]:
    """Every layer of a VGG by name, (B, 3, H, W) in [0, 1] in, float64 out."""
    values = (image.double() - torch.tensor(mean).double().view(1, 3, 1, 1)) / torch.tensor(std).double().view(
        1, 3, 1, 1
    )
    weights, found, index = state(network), dict[str, Tensor](), 0
    for block, count in enumerate(CONVOLUTIONS[network], start=1):
        for number in range(1, count + 1):
            weight, bias = (weights[f"features.{index}.{kind}"].double() for kind in ("weight", "bias"))
            found[f"conv{block}_{number}"] = F.conv2d(values, weight, bias, padding=1)
            values = found[f"relu{block}_{number}"] = found[f"conv{block}_{number}"].clamp(min=0)
            index += 2
        values = found[f"pool{block}"] = F.max_pool2d(values, 2)
        index += 1
    return found


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Output and target, float32, the output outside of [0, 1] in places."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(*shape, generator=generator)
    return target + 0.2 * torch.randn(*shape, generator=generator), target
