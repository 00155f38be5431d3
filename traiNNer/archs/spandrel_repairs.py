"""Where spandrel's networks, written to run and not to train, need another forward pass.

Imports spandrel; import this module only to build one of its networks.
"""

from __future__ import annotations

from typing import cast

import torch
from spandrel.architectures.RCAN import RCAN
from spandrel.architectures.SeemoRe.__arch.seemore_arch import MoELayer
from spandrel.architectures.SPAN.__arch.span import Conv3XC
from torch import Tensor, nn
from torch.nn import functional as F


class MergingConv3XC(Conv3XC):
    """SPAN's convolution: three in training, one merged from them in evaluation.

    spandrel's writes the merged weights into `eval_conv` whenever it evaluates, in the precision of autocast, so that a
    validation changes the network. Here they are computed beside it, and written when the network is saved.
    """

    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight (c_out, c_in, 3, 3) and bias (c_out,) of the one convolution."""
        first, second, last = cast("tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]", tuple(self.conv))
        start, end = first.weight[..., 0, 0], last.weight[..., 0, 0]
        weight = torch.einsum("om,mnhw,ni->oihw", end, second.weight, start) + F.pad(self.sk.weight, (1, 1, 1, 1))
        bias = torch.einsum("mnhw,n->m", second.weight, _bias(first)) + _bias(second)
        return weight, end @ bias + _bias(last) + _bias(self.sk)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H, W)."""
        if self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.merged()
        out = F.conv2d(x, weight, bias, stride=self.stride, padding=1)
        return F.leaky_relu(out, negative_slope=0.05) if self.has_relu else out

    @torch.no_grad()
    def write_merged(self, *_: object) -> None:
        """Put the merged weights where a saved network holds them."""
        weight, bias = self.merged()
        self.eval_conv.weight.copy_(weight)
        _bias(self.eval_conv).copy_(bias)


def _bias(conv: nn.Conv2d) -> Tensor:
    return cast("Tensor", conv.bias)


def _write_merged(module: MergingConv3XC, _prefix: str, _keep_vars: bool) -> None:
    module.write_merged()


class BatchedMoELayer(MoELayer):
    """SeemoRe's choice of experts for each image of a batch; spandrel's evaluates one image at a time."""

    def forward(self, inputs: Tensor, k: Tensor) -> Tensor:
        """Features and context, each (B, C, H, W), to (B, C, H, W)."""
        if self.training or len(inputs) == 1:
            return super().forward(inputs, k)
        return torch.cat(
            [super(BatchedMoELayer, self).forward(*one) for one in zip(inputs.split(1), k.split(1), strict=True)]
        )


class CopyingRCAN(RCAN):
    """RCAN that leaves its input alone; spandrel's multiplies it in place."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, scale H, scale W)."""
        return super().forward(x.clone())


_REPAIRED: dict[type[nn.Module], type[nn.Module]] = {
    Conv3XC: MergingConv3XC,
    MoELayer: BatchedMoELayer,
    RCAN: CopyingRCAN,
}


def repair(net: nn.Module) -> nn.Module:
    """Give the parts of a network that need it their other forward pass; names and values stay."""
    for module in net.modules():
        other = _REPAIRED.get(type(module))
        if other is not None:
            module.__class__ = other
        if isinstance(module, MergingConv3XC):
            module.register_state_dict_pre_hook(_write_merged)
    return net
