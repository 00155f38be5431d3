"""Networks, one per file; spandrel's under traiNNer-redux's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS


def build_network(options: Mapping[str, Any]) -> nn.Module:
    """Build a network.

    Args:
        options: `{"type": NAME, **parameters}`; a generator's `scale` is among the parameters.

    Returns:
        The network, with `network_info`: its type, complete parameters, scale, channels and limits.

    Raises:
        ConfigError: unknown type or parameter, or a value outside its range.
    """
    parameters = NETWORKS.validate(options)
    net = NETWORKS.get(str(options["type"]))(**parameters)
    info = getattr(net, "network_info", None) or NetworkInfo(type="", scale=parameters.get("scale", 1))
    net.network_info = replace(info, type=NETWORKS.canonical(str(options["type"])), parameters=parameters)
    return net
