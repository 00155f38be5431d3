"""What the tests of checkpoints share: a small run with all that a checkpoint has to carry."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from traiNNer.utils.checkpoint import Checkpoint, CheckpointFolders
from traiNNer.utils.rng import RandomState, seed_everything

Optimizers = Callable[..., torch.optim.Optimizer]


class Net(nn.Module):
    """Statistics, a boolean and an integer buffer, dropout, and a scale that is the same tensor twice."""

    def __init__(self, features: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.norm = nn.BatchNorm2d(features)
        self.drop = nn.Dropout(0.2)
        self.tail = nn.Conv2d(features, 3, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.tied = self.scale
        self.register_buffer("odd", torch.tensor(False))
        self.register_buffer("mask", torch.arange(6).reshape(2, 3).T > 2)

    def forward(self, x: Tensor) -> Tensor:
        self.odd.logical_not_()
        return self.tail(self.drop(torch.relu(self.norm(self.head(x))))) * self.scale


@dataclass
class Counter:
    """An object that is not required."""

    values: dict[str, Any] = field(default_factory=lambda: {"count": 0})

    def state_dict(self) -> dict[str, Any]:
        return self.values

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = {}  # what fails below leaves it in between
        self.values["count"] = state_dict["count"]


class Run:
    """Trains a network and its average on random numbers of every generator."""

    def __init__(
        self,
        folders: CheckpointFolders,
        optimizer: Optimizers = torch.optim.AdamW,
        *,
        seed: int = 0,
        features: int = 8,
        ema: bool = True,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        seed_everything(seed)
        self.net, self.counter = Net(features), Counter()
        if channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.net)
        self.optimizer = optimizer(self.net.parameters(), lr=1e-2)
        self.checkpoint = Checkpoint(folders, **options)
        self.checkpoint.track_network("net_g", self.net, lambda iteration: {"iteration": str(iteration)})
        if ema:
            self.checkpoint.track_network("net_g_ema", self.ema, {})
        self.checkpoint.track("optimizer/net_g", self.optimizer, required=True)
        self.checkpoint.track("rng", RandomState(), last=True)
        self.checkpoint.track("counter", self.counter)

    def step(self, steps: int = 1) -> None:
        for _ in range(steps):
            x = torch.rand(2, 3, 6, 6) * float(np.random.rand())
            self.optimizer.zero_grad()
            self.set_gradients(x)
            self.optimizer.step()
            self.counter.values["count"] += 1
            with torch.no_grad():
                for average, tensor in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                    average.lerp_(tensor, 0.1)

    def set_gradients(self, x: torch.Tensor) -> None:
        (self.net(x) - x).abs().mean().backward()

    def everything(self) -> Any:
        parts = (self.net, self.ema, self.optimizer, self.counter, RandomState())
        return copy.deepcopy([part.state_dict() for part in parts])


def folders_in(folder: Path) -> CheckpointFolders:
    return CheckpointFolders(
        models=folder / "models", resume_models=folder / "resume_models", training_states=folder / "training_states"
    )


def same(first: Any, second: Any) -> bool:
    """Equality to the last bit, of tensors in containers too."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def files(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
