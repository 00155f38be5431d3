"""What the tests of networks share: small options of each, weights that make every layer count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.archs import build_network

SMALL: dict[str, dict[str, Any]] = {
    "ParagonSR2": {
        "scale": 2,
        "num_feat": 8,
        "num_groups": 2,
        "num_blocks": 2,
        "block_kwargs": {"band_kernel_size": 5},
    },
    "ParagonSR2Fused": {"scale": 2, "num_feat": 8, "num_groups": 2, "num_blocks": 1, "band_kernel_size": 5},
    "paragonsr2_nano": {"scale": 2},
    "munet": {"num_feat": 4, "ch_mult": [1, 2, 3]},
    "unetdiscriminatorsn": {"num_feat": 4},
    "patchgandiscriminatorsn": {"ndf": 4, "n_layers": 2},
    "multiscalepatchgandiscriminatorsn": {"ndf": 4, "n_layers": 2, "num_d": 2},
}


def small(name: str, **options: Any) -> nn.Module:
    """A network with few features, always the same, and layer factors near 1 instead of 1e-5."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_network({"type": name, **SMALL[name], **options})
        enliven(net)
    return net


def enliven(net: nn.Module) -> None:
    """Factors near 1 and kernels of some size: at 1e-5 nothing of a block would show in an output."""
    for name, parameter in net.named_parameters():
        if name.endswith("gamma"):
            nn.init.uniform_(parameter, 0.7, 1.3)
        if name.endswith("predictor.3.bias"):
            nn.init.normal_(parameter, std=0.3)


def images(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def outputs(net: nn.Module, x: Tensor) -> list[Tensor]:
    """A network's output tensors, one or several."""
    result = net(x)
    return [result] if isinstance(result, Tensor) else list(result)
