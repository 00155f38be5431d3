"""Convolutions with spectral norm whose power iteration belongs to the optimizer step, not to the forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class SpectralNormConv2d(nn.Conv2d):
    """A convolution whose weight is W / sigma(W), sigma the largest singular value, estimated by power iteration.

    torch's parametrization takes an iteration in every forward pass in training, so that a weight would differ between
    the real and the generated batch, between micro-batches, and after a generator's step that only looks. Here the
    vectors follow the weight once per optimizer step, in `after_update()`, which the training loop must call.
    sigma is computed in float32 under autocast as well.

    Reference: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel_size: side, px.
        stride: px.
        padding: zeros on each side, px.
        bias: whether there is one; it starts at zero if `slope` is given.
        slope: Kaiming initialization (normal, fan_in) for LeakyReLUs of this slope; None for torch's own.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 1,
        *,
        bias: bool = False,
        slope: float | None = None,
    ) -> None:
        super().__init__(inputs, outputs, kernel_size, stride, padding, bias=bias)
        if slope is not None:
            kaiming_(self, slope)
        parametrizations.spectral_norm(self)
        self.train()

    def train(self, mode: bool = True) -> SpectralNormConv2d:
        """Change the mode, but not that of the norm: a forward pass never moves its vectors."""
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    @torch.no_grad()
    def after_update(self) -> None:
        """The optimizer step is complete: let the vectors follow the new weight by one power iteration."""
        for norm in self._norms():
            norm.train()
            _ = self.weight  # torch iterates when the weight is computed
            norm.eval()

    def _norms(self) -> Iterator[nn.Module]:
        yield from cast("nn.ModuleDict", self.parametrizations)["weight"].children()


def kaiming_(conv: nn.Conv2d, slope: float) -> nn.Conv2d:
    """Initialize in place for a LeakyReLU of this slope: weights Kaiming normal over fan_in, biases zero."""
    nn.init.kaiming_normal_(conv.weight, a=slope, mode="fan_in", nonlinearity="leaky_relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
