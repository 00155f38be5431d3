"""A network from nothing but its weights file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from traiNNer.archs import build_network
from traiNNer.archs.spandrel_repairs import repair
from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.weights import WeightsFile, load_into, read_weights


def network_from_weights(path: str | Path) -> nn.Module:
    """Build the network that a file's weights belong to, and load them.

    Files of this program say in their metadata what they are. Others are recognized by spandrel, by the names and
    shapes of their tensors; what these do not show is guessed then.

    Args:
        path: a `.safetensors` or `.pth` file.

    Returns:
        The network on the CPU in evaluation mode, with `network_info`.

    Raises:
        ConfigError: a file that cannot be read, or one of a network that neither knows.
    """
    weights = read_weights(Path(path))
    net = _from_metadata(weights) if "parameters" in weights.metadata else _recognized(weights)
    return net.eval()


def _from_metadata(weights: WeightsFile) -> nn.Module:
    net: Any
    try:
        parameters: dict[str, Any] = json.loads(weights.metadata["parameters"])
        net = build_network({**parameters, "type": weights.metadata.get("type")})
    except (ConfigError, TypeError, ValueError) as error:
        reason = str(error).replace("\n", "; ")
        raise ConfigError(
            f"found {weights.path}, whose metadata name a network that is not offered: {reason}"
        ) from None
    load_into(net, weights, strict=True, where=str(weights.path))
    net.network_info = replace(net.network_info, normalization=weights.normalization)
    return net


def _recognized(weights: WeightsFile) -> nn.Module:
    import spandrel

    try:
        model = spandrel.ModelLoader().load_from_state_dict(dict(weights.tensors))
    except (spandrel.UnsupportedModelError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        model = None
    if not isinstance(model, spandrel.ImageModelDescriptor):
        text = f"found {weights.path}, whose network is not recognized"
        raise ConfigError(f"{text}; accepted: weights that this program saved, or of a generator that spandrel knows")
    net: Any = repair(model.model)
    requirements = model.size_requirements
    net.network_info = NetworkInfo(
        type=model.architecture.id,
        scale=model.scale,
        in_channels=model.input_channels,
        out_channels=model.output_channels,
        multiple_of=requirements.multiple_of,
        minimum=max(1, requirements.minimum),
        supports_half=model.supports_half,
        supports_bfloat16=model.supports_bfloat16,
    )
    return net
