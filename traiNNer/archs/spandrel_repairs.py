"""Where spandrel's networks, written to run and not to train, need another forward pass.

A module gets it as an attribute; its class, names and values stay spandrel's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def repair(net: nn.Module) -> nn.Module:
    """Give the modules of one of spandrel's networks that need it their other forward pass, in place."""
    for module in net.modules():
        kind = type(module)
        other = _FORWARDS.get(kind.__name__)
        if other is not None and kind.__module__.startswith("spandrel."):
            module.forward = partial(other, module)
            if other is forward_merged:
                module.register_state_dict_pre_hook(_write_merged)
    return net


def merge(conv: Any) -> tuple[Tensor, Tensor]:
    """Weight (c_out, c_in, 3, 3) and bias (c_out,) of the one convolution that SPAN's three are."""
    first, second, last = conv.conv
    start, end = first.weight[..., 0, 0], last.weight[..., 0, 0]
    weight = torch.einsum("om,mnhw,ni->oihw", end, second.weight, start) + F.pad(conv.sk.weight, (1, 1, 1, 1))
    bias = torch.einsum("mnhw,n->m", second.weight, first.bias) + second.bias
    return weight, end @ bias + last.bias + conv.sk.bias


def forward_merged(conv: Any, x: Tensor) -> Tensor:
    """SPAN's convolution, (B, c_in, H, W) to (B, c_out, H, W): three in training, one merged from them in evaluation.

    spandrel's writes the merged weights into `eval_conv` whenever it evaluates, in the precision of autocast, so that a
    validation changes the network. Here they are computed beside it, and written when the network is saved.
    """
    if conv.training:
        return type(conv).forward(conv, x)
    with torch.autocast(x.device.type, enabled=False):
        weight, bias = merge(conv)
    out = F.conv2d(x, weight, bias, stride=conv.stride, padding=1)
    return F.leaky_relu(out, negative_slope=0.05) if conv.has_relu else out


def forward_each(layer: Any, inputs: Tensor, k: Tensor) -> Tensor:
    """SeemoRe's choice of experts for each image of a batch, features and context (B, C, H, W) to (B, C, H, W).

    spandrel's evaluates one image at a time.
    """
    if layer.training or len(inputs) == 1:
        return type(layer).forward(layer, inputs, k)
    return torch.cat([type(layer).forward(layer, *one) for one in zip(inputs.split(1), k.split(1), strict=True)])


def forward_copy(net: Any, x: Tensor) -> Tensor:
    """RCAN, (B, 3, H, W) to (B, 3, scale H, scale W), on a copy; spandrel's multiplies its input in place."""
    return type(net).forward(net, x.clone())


_FORWARDS: dict[str, Callable[..., Tensor]] = {
    "Conv3XC": forward_merged,
    "MoELayer": forward_each,
    "RCAN": forward_copy,
}
"""By the class's name in spandrel."""


@torch.no_grad()
def _write_merged(conv: Any, _prefix: str, _keep_vars: bool) -> None:
    """Put the merged weights where a saved network holds them; a hook that runs before `state_dict`."""
    weight, bias = merge(conv)
    conv.eval_conv.weight.copy_(weight)
    conv.eval_conv.bias.copy_(bias)
