"""64 generators through spandrel, under traiNNer-redux's names and parameters.

The table is read at import; spandrel itself (1.8 s) is imported when one of the networks is built.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.archs import channels
from traiNNer.archs.spandrel_family import Family
from traiNNer.archs.spandrel_parameters import PARAMETERS, one_of, only
from traiNNer.archs.spandrel_repairs import repair
from traiNNer.archs.spandrel_table import FAMILIES
from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import ConfigError, RunError
from traiNNer.utils.registry import NETWORKS

_ALIKE = (
    ("depth", "depths", "num_heads", "num_heads_window", "num_heads_stripe"),
    ("sparse_kernels", "sparse_dilations"),
)
"""Lists with a value for each group or each convolution."""

_MISFITS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(NotImplementedError, RuntimeError, TypeError, ValueError),
)
"""What spandrel's networks raise for parameters that do not go together."""


def build(name: str, family: Family, parameters: dict[str, Any]) -> nn.Module:
    """Build one network of a family.

    Args:
        name: the variant.
        family: its row in the table.
        parameters: traiNNer-redux's, complete and checked one by one.

    Returns:
        The network in training mode, with `network_info`.

    Raises:
        ConfigError: parameters that do not go together.
    """
    net: Any
    try:
        _check_lengths(parameters)
        net = _construct(family, parameters)
        _freeze(net, family)
        info = describe(name, family, parameters, net)
        if parameters != default_parameters(name, family) | {"scale": parameters["scale"]}:
            _try_out(net, info)
    except _MISFITS as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        text = f"these parameters of {name} do not go together ({reason}); accepted: its defaults"
        raise ConfigError(f"{text}, or parameters with which spandrel's {family.module} works") from None
    net.network_info = info
    if family.smallest_batch > 1:
        net.register_forward_pre_hook(partial(_check_batch, name, family.smallest_batch))
    return net


def describe(name: str, family: Family, parameters: Mapping[str, Any], net: nn.Module) -> NetworkInfo:
    """The facts about a network of a family."""
    multiple_of = family.multiple_of(parameters)
    taken = next((parameters[key] for key in (*channels.INPUT, *channels.BOTH) if key in parameters), 3)
    return NetworkInfo(
        type=name,
        parameters=dict(parameters),
        scale=parameters["scale"],
        in_channels=taken,
        out_channels=next((parameters[key] for key in channels.OUTPUT if key in parameters), taken),
        multiple_of=multiple_of,
        minimum=-(-family.minimum(parameters) // multiple_of) * multiple_of,
        supports_half=family.half(parameters),
        batch_coupled=any(_couples(module) for module in net.modules()),
    )


def default_parameters(name: str, family: Family) -> dict[str, Any]:
    """A variant's complete defaults."""
    scale = 4 if 4 in scales_of(name, family) else 1
    return {"scale": scale, **family.defaults, **family.variants[name]}


def scales_of(name: str, family: Family) -> tuple[int, ...]:
    """The scales that a variant can have."""
    return family.other_scales.get(name, family.scales)


def _construct(family: Family, parameters: Mapping[str, Any]) -> nn.Module:
    handed = {
        key: _plain(value, family.defaults.get(key)) for key, value in parameters.items() if key not in family.only
    }
    network = family.network or family.module
    if family.adapt is not None:
        network, handed = family.adapt(handed)
    elif family.scale is not None:
        handed[family.scale] = handed.pop("scale")
    module = importlib.import_module(f"spandrel.architectures.{family.module}")
    net: Any = repair(getattr(module, network)(**handed))
    net.derived_buffers = family.derived
    return net


def _plain(value: Any, default: Any) -> Any:
    """A value as spandrel's constructors take it: lists, and whole numbers where the default is one."""
    if isinstance(value, float) and isinstance(default, int) and value.is_integer():
        return int(value)
    return list(value) if isinstance(value, tuple) else value


def _check_batch(name: str, smallest: int, net: nn.Module, inputs: tuple[Tensor]) -> None:
    """A hook that runs before the network.

    Raises:
        RunError: batch normalization has too few values to train on.
    """
    if net.training and len(inputs[0]) < smallest:
        reason = f"{name} trains on at least {smallest} images at a time, because it normalizes over the batch"
        raise RunError(f"{reason}; raise batch_size_per_gpu")


def _check_lengths(parameters: Mapping[str, Any]) -> None:
    """spandrel's networks leave out what is too much in one of two lists.

    Raises:
        ValueError: lists that go together have other lengths.
    """
    for names in _ALIKE:
        lengths = {name: len(parameters[name]) for name in names if isinstance(parameters.get(name), tuple)}
        if len(set(lengths.values())) > 1:
            raise ValueError(" and ".join(f"{name} has {length} values" for name, length in lengths.items()))


def _freeze(net: nn.Module, family: Family) -> None:
    for name, parameter in net.named_parameters():
        if any(re.search(pattern, name) for pattern in family.untrained):
            parameter.requires_grad_(False)


def _couples(module: nn.Module) -> bool:
    """Whether a module mixes the samples of a batch or draws random numbers in training."""
    dropped = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else getattr(module, "drop_prob", None)
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or bool(dropped)


def _try_out(net: nn.Module, info: NetworkInfo) -> None:
    """Enlarge one small image, because spandrel's networks check little before they are called.

    Raises:
        ValueError: the result has another size than the scale says; whatever else the network raises.
    """
    height, width = info.minimum, info.minimum + info.multiple_of
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape = tuple(net.eval()(torch.zeros(1, info.in_channels, height, width)).shape)
    net.train()
    expected = (1, info.out_channels, info.scale * height, info.scale * width)
    if shape != expected:
        raise ValueError(f"the output is {'x'.join(map(str, shape))} instead of {'x'.join(map(str, expected))}")


def _signature(name: str, family: Family) -> inspect.Signature:
    def annotation(key: str, default: Any) -> Any:
        if key == "scale":
            return one_of("factor from the input's size to the output's; the option file's", scales_of(name, family))
        if key in family.only:
            return only(default, family.only[key])
        return family.annotations.get(key, PARAMETERS.get(key))

    defaults = default_parameters(name, family).items()
    return inspect.Signature(
        [
            inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=v, annotation=annotation(k, v))
            for k, v in defaults
        ],
        return_annotation=nn.Module,
    )


def _documentation(name: str, family: Family) -> str:
    return (
        f"{family.summary}\n\n"
        "Shapes: (B, 3, H, W) to (B, 3, scale H, scale W). Range: as the image, about [0, 1], not clipped.\n"
        f"Reference: {family.reference}. Built by spandrel's {family.module}.\n\n"
        f"```yaml\nnetwork_g:\n  type: {name}\n```\n"
    )


def _factory(name: str, family: Family) -> Callable[..., nn.Module]:
    def factory(**parameters: Any) -> nn.Module:
        return build(name, family, parameters)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = _documentation(name, family)
    factory.__signature__ = _signature(name, family)  # type: ignore[attr-defined]
    return factory


for _family in FAMILIES:
    for _name in _family.variants:
        NETWORKS.register(_name)(_factory(_name, _family))
