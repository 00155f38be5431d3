"""What the tests of adversarial steps share: two tiny players, batches, and everything that a step may change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.archs import build_network
from traiNNer.losses import build_losses
from traiNNer.models.ema import Ema
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.utils.registry import LOSSES

L1 = {"type": "l1loss", "loss_weight": 1.0}
GAN = {"type": "ganloss", "loss_weight": 0.1, "name": "gan"}
R1_R2 = {"r1_weight": 0.5, "r2_weight": 0.3}
FAR = 10**6
"""An iteration that no test reaches."""


class Upscaler(nn.Module):
    """Twice the size, by two convolutions with a BatchNorm between them where buffers are wanted."""

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6) if batch_norm else nn.Identity()
        self.last = nn.Conv2d(6, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.last(torch.tanh(self.norm(self.first(x)))), 2)


class InFloat64(nn.Module):
    """A float64 discriminator, which the model hands float32 images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.double())


def player(net: nn.Module, optimizer: Mapping[str, Any], **keywords: Any) -> Player:
    built = build_optimizer(optimizer, net)
    return Player(net, built, LearningRate(built, build_schedule(None, 10)), **keywords)


def gan_model(
    *losses: Mapping[str, Any],
    optimizer: Mapping[str, Any] | None = None,
    batch_norm: bool = False,
    float64: bool = False,
    forward_net: Callable[[nn.Module], nn.Module] = lambda net: net,
    forward_net_g: Callable[[nn.Module], nn.Module] = lambda net: net,
    **keywords: Any,
) -> SRModel:
    """The same two networks at every call."""
    optimizer = optimizer or {"type": "SGD", "lr": 0.05, "momentum": 0.9}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net_g = Upscaler(batch_norm=batch_norm)
        net_d = build_network({"type": "munet", "num_feat": 4, "ch_mult": [1, 2]})
    if float64:
        net_g, net_d = net_g.double(), InFloat64(net_d)
    return SRModel(
        generator=player(net_g, optimizer, forward_net=forward_net_g(net_g)),
        losses=build_losses(losses),
        discriminator=player(net_d, optimizer, forward_net=forward_net(net_d)),
        ema=Ema(net_g, decay=0.9),
        **keywords,
    )


def batch(seed: int, size: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    lq = torch.rand(size, 3, 8, 8, generator=generator, dtype=dtype)
    gt = torch.rand(size, 3, 16, 16, generator=generator, dtype=dtype)
    return {"lq": lq, "gt": gt}


def step(model: SRModel, iteration: int, *batches: dict[str, Any]) -> None:
    model.feed_data(batches or [batch(iteration)])  # type: ignore[arg-type]
    model.optimize_parameters(iteration)


def net_d(model: SRModel) -> nn.Module:
    return model.players["net_d"].net


def state(model: SRModel, *names: str) -> dict[str, Any]:
    """A copy of everything that a step may change, or of some of it."""
    found: dict[str, Any] = {"ema": model.net_val.state_dict()}
    for name, each in model.players.items():
        found |= {name: each.net.state_dict(), f"optimizer/{name}": each.optimizer.state_dict()["state"]}
    if model.adaptive_d is not None:
        found["adaptive_d"] = model.adaptive_d.state_dict()
    return copy.deepcopy({name: found[name] for name in names or found})


def same(found: Any, expected: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], value) for key, value in expected.items())
    if isinstance(expected, Tensor):
        return torch.equal(found, expected) or bool(found.isnan().all() and expected.isnan().all())
    return found == expected


@contextmanager
def watched(net: nn.Module) -> Iterator[list[tuple[torch.dtype, bool]]]:
    """The forward passes of a network: each's dtype, and whether autocast was on."""
    passes: list[tuple[torch.dtype, bool]] = []
    handle = net.register_forward_hook(
        lambda module, args, output: passes.append((output.dtype, torch.is_autocast_enabled("cpu")))
    )
    try:
        yield passes
    finally:
        handle.remove()


def passes_at(model: SRModel, net: nn.Module, iterations: Sequence[int]) -> list[int]:
    """How many forward passes of a network each iteration takes."""
    counts = []
    for iteration in iterations:
        with watched(net) as passes:
            step(model, iteration)
        counts.append(len(passes))
    return counts


@contextmanager
def registered_loss(name: str, factory: type[nn.Module]) -> Iterator[None]:
    """A loss that exists for the duration of a test."""
    LOSSES.register(name)(factory)
    try:
        yield
    finally:
        key = LOSSES.normalize(name)
        del LOSSES._factories[key], LOSSES._spelled[key]
