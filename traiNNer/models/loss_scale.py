"""Scaling of the loss for float16, decided on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class LossScale:
    """The factor that keeps float16 gradients from underflowing.

    Halved when a step was not finite, doubled after `growth_interval` finite ones in a row: the rule of torch's
    `GradScaler` (Micikevicius et al., "Mixed precision training", ICLR 2018), which is not used because it decides
    from the gradients of one optimizer and reads that decision on the host for optimizers that are not fused; here
    one decision on the device, `finite`, serves the optimizer, EMA, buffers and scale alike.
    """

    def __init__(self, device: torch.device, *, initial: float = 65536.0, growth_interval: int = 2000) -> None:
        self._scale = torch.tensor(initial, device=device)
        self._finite_steps = torch.zeros((), device=device)
        self._growth_interval = growth_interval

    @property
    def value(self) -> Tensor:
        """The present scale, a device scalar that later updates leave as it is."""
        return self._scale

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` on."""
        return loss * self._scale

    def unscale_(self, gradients: list[Tensor]) -> None:
        """Divide the gradients by the scale, in place."""
        torch._foreach_mul_(gradients, 1 / self._scale)

    def update(self, finite: Tensor) -> None:
        """Move the scale after a step; `finite` is a bool device scalar."""
        steps = torch.where(finite, self._finite_steps + 1, 0)
        grown = torch.where(steps >= self._growth_interval, self._scale * 2, self._scale)
        self._scale = torch.where(finite, grown, self._scale * 0.5)
        self._finite_steps = torch.where(steps >= self._growth_interval, 0, steps).to(self._finite_steps.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Scale and count of finite steps."""
        return {"scale": self._scale.cpu(), "finite_steps": self._finite_steps.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved scale."""
        self._scale = state_dict["scale"].to(self._scale.device)
        self._finite_steps = state_dict["finite_steps"].to(self._scale.device)
