"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Ema:
    """A network whose weights are the moving average of another's, on torch's `AveragedModel`.

    Before `update_after_step` it is a copy; from then on, with n = iteration - update_after_step - 1,

        ema <- decay(n) ema + (1 - decay(n)) weights,    decay(n) = min(ema_decay, 1 - (1 + n)^-power)

    (the warm-up of lucidrains' ema-pytorch, which traiNNer-redux uses), so that the average forgets the random
    initial weights. The decay is a function of the iteration: nothing is counted here. Floating-point buffers are
    averaged like weights, others are copied.

    Args:
        net: the network to follow; its present weights are the start.
        decay: largest decay, in [0, 1).
        power: how fast the decay rises, > 0.
        update_after_step: iterations during which the average stays a plain copy.
    """

    def __init__(self, net: nn.Module, *, decay: float, power: float = 10.0, update_after_step: int = 0) -> None:
        self._decay, self._power, self._update_after_step = decay, power, update_after_step
        self._weight: Tensor = torch.zeros(())
        self._averaged = AveragedModel(copy.deepcopy(net), multi_avg_fn=self._move, use_buffers=True)
        self._averaged.n_averaged.fill_(1)  # it is a copy already; torch would copy at the first update otherwise
        self.net.eval().requires_grad_(False)

    @property
    def net(self) -> nn.Module:
        """The averaged network, in evaluation mode, without gradients."""
        return self._averaged.module

    def decay_at(self, iteration: int) -> float:
        """The decay of the update after this iteration, from 1."""
        n = iteration - self._update_after_step - 1
        return 0.0 if n <= 0 else min(self._decay, 1 - (1 + n) ** -self._power)

    def update(self, net: nn.Module, iteration: int, finite: Tensor) -> None:
        """Follow `net` by one step; nothing moves where the device scalar `finite` is false."""
        self._weight = (1 - self.decay_at(iteration)) * finite
        self._averaged.update_parameters(net)

    def _move(self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        if not averaged[0].is_floating_point():
            for old, new in zip(averaged, current, strict=True):
                old.copy_(torch.where(self._weight > 0, new, old))
            return
        step = torch._foreach_sub(list(current), list(averaged))
        torch._foreach_mul_(step, self._weight.to(averaged[0].dtype))
        torch._foreach_add_(list(averaged), step)
