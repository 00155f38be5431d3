"""A loss that has ended is gone from a whole run: nothing of what built the run keeps its network."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES

Run = Callable[..., int]


class FreedLoss(Loss):
    """One with a network."""

    built: weakref.ref[FreedLoss] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Conv2d(3, 4096, 3).requires_grad_(False)
        FreedLoss.built = weakref.ref(self)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (self.net(output) - self.net(target)).abs().mean()


class WitnessLoss(Loss):
    """Notes the iterations at which the other one is still there."""

    seen: dict[int, bool] = {}

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output: Tensor, target: Tensor, current_iter: int) -> Tensor:
        gc.collect()
        assert FreedLoss.built is not None
        WitnessLoss.seen[current_iter] = FreedLoss.built() is not None
        return (output - target).abs().mean()


@pytest.fixture
def _both() -> Iterator[None]:
    losses = {"freedloss": FreedLoss, "witnessloss": WitnessLoss}
    for name, factory in losses.items():
        LOSSES.register(name)(factory)
    yield
    for key in map(LOSSES.normalize, losses):
        del LOSSES._factories[key], LOSSES._spelled[key]


@pytest.mark.usefixtures("_both")
def test_an_ended_loss_is_freed_in_a_run(options: dict[str, Any], run_training: Run) -> None:
    options["train"]["losses"] = [
        {"type": "freed", "loss_weight": 1.0, "disable_after": 5},
        {"type": "witness", "loss_weight": 1.0},
    ]
    assert run_training(options) == 0  # validations at 4 and 8 look at losses as well
    assert WitnessLoss.seen == {iteration: iteration <= 5 for iteration in range(1, 9)}
