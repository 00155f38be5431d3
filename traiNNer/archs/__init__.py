"""Networks by name: generators and discriminators, one registered component per file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS


def build_network(options: Mapping[str, Any]) -> nn.Module:
    """Build `{"type": NAME, **parameters}`.

    Returns:
        The network in training mode on the CPU, with `network_info`. What its constructor put there already is kept;
        its canonical type and complete parameters are filled in, so that
        `build_network({"type": info.type, **info.parameters})` builds the same network again.

    Raises:
        ConfigError: unknown type or parameter, or a value outside its range; keys are relative to `options`.
    """
    parameters = NETWORKS.validate(options)
    factory = NETWORKS.get(options["type"])
    net: nn.Module = factory(**parameters)
    info = getattr(net, "network_info", None)
    if not isinstance(info, NetworkInfo):
        info = NetworkInfo(type="", scale=parameters.get("scale", 1))
    complete = {name: info.parameters.get(name, value) for name, value in parameters.items()}
    plain = json.loads(json.dumps(complete))  # as the metadata of a weights file gives them back
    info = replace(info, type=NETWORKS.canonical(options["type"]), parameters=plain)
    net.network_info = info  # type: ignore[assignment]  # modules are typed as having tensors and modules only
    return net


def after_update(net: nn.Module) -> None:
    """Tell a network that an optimizer step is complete; call it after every step of a training loop.

    Modules that keep statistics of a whole step have a method `after_update()`: ParagonSR2's tracked kernels become
    the mean over the step's micro-batches, and spectral norms follow the new weights.
    """
    for module in net.modules():
        hook = getattr(module, "after_update", None)
        if hook is not None:
            hook()
