"""Schedule-free Adan."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import AveragePower, Eps, LearningRate, RatePower, WarmupSteps, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("AdanScheduleFree")
def adan_schedule_free(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-3,
    betas: Annotated[
        tuple[
            Annotated[float, Field(gt=0, lt=1)],
            Annotated[float, Field(ge=0, lt=1)],
            Annotated[float, Field(ge=0, lt=1)],
        ],
        Field(
            description="share of the average in the training weights; decay rates of the gradient's change and square"
        ),
    ] = (0.98, 0.92, 0.99),
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.01,
    warmup_steps: WarmupSteps = 0,
    r: AveragePower = 0.0,
    weight_lr_power: RatePower = 2.0,
) -> torch.optim.Optimizer:
    """Adan without momentum at z, trained at y = (1 - b1) z + b1 x; x, the mean of all z, is what is released.

    z <- z - lr ((g + b2 d) / (sqrt(n) + eps) + weight_decay y); x <- (1 - c) x + c z, with c the step's share of all
    steps; d is the mean of the change of the gradient g, c' = g - previous g, and n that of (g + b2 c')^2.

    Shapes: any. Range: `lr` > 0.
    Reference: Defazio et al., NeurIPS 2024, algorithm 1, with the step of Xie et al., IEEE TPAMI 46(12), 2024.
    traiNNer-redux: z follows the bare gradient there, so that rates do not carry over.

    ```yaml
    optim_g:
      type: AdanScheduleFree
      lr: 1.0e-3
      betas: [0.98, 0.92, 0.99]
      warmup_steps: 100
    ```
    """
    return AdanScheduleFree(
        parameters,
        {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
        },
    )


class AdanScheduleFree(torch.optim.Optimizer):
    """See `adan_schedule_free`.

    pytorch_optimizer's wrapper for schedule-free training does not serve: with its Adan each step counts twice, and
    the keys of its state are pairs, which a safe file does not hold.

    Args:
        parameters: to train.
        defaults: hyperparameters.
    """

    def __init__(self, parameters: list[Tensor], defaults: dict[str, Any]) -> None:
        super().__init__(parameters, {**defaults, "step": 0, "train_mode": True, "weight_sum": 0.0, "lr_max": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of z, x and y; the weights are y."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(group, weights, [weight.grad for weight in weights])
        return loss

    def _step(self, group: dict[str, Any], y: list[Tensor], gradients: list[Tensor]) -> None:
        group["step"] += 1
        step, (beta1, beta2, beta3) = group["step"], group["betas"]
        lr = group["lr"] * (min(1.0, step / group["warmup_steps"]) if group["warmup_steps"] else 1.0)
        group["lr_max"] = max(lr, group["lr_max"])
        weight = step ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
        group["weight_sum"] += weight
        share = weight / group["weight_sum"] if group["weight_sum"] else 0.0
        for weights, gradient in zip(y, gradients, strict=True):
            if not self.state[weights]:
                self.state[weights] = {
                    "z": weights.clone(),
                    "exp_avg_diff": torch.zeros_like(weights),
                    "exp_avg_sq": torch.zeros_like(weights),
                    "previous_grad": gradient.clone(),
                }
        z, means, squares, previous = (
            [self.state[weights][key] for weights in y] for key in ("z", "exp_avg_diff", "exp_avg_sq", "previous_grad")
        )
        changes = torch._foreach_sub(gradients, previous)
        torch._foreach_copy_(previous, gradients)
        torch._foreach_lerp_(means, changes, weight=1 - beta2)
        ahead = torch._foreach_add(gradients, changes, alpha=beta2)
        torch._foreach_mul_(squares, beta3)
        torch._foreach_addcmul_(squares, ahead, ahead, value=1 - beta3)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, math.sqrt(1 - beta3**step))
        torch._foreach_add_(roots, group["eps"])
        update = torch._foreach_add(gradients, means, alpha=beta2 / (1 - beta2**step))
        torch._foreach_div_(update, roots)
        torch._foreach_add_(update, y, alpha=group["weight_decay"])
        # y of the new x and z, without x: y + share (z - y) - lr (1 - beta1 (1 - share)) update
        torch._foreach_lerp_(y, z, weight=share)
        torch._foreach_add_(y, update, alpha=-lr * (1 - beta1 * (1 - share)))
        torch._foreach_add_(z, update, alpha=-lr)

    def eval(self) -> None:
        """Turn the weights from y into x."""
        self._turn(train=False)

    def train(self) -> None:
        """Turn the weights from x into y, to rounding."""
        self._turn(train=True)

    @torch.no_grad()
    def _turn(self, *, train: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] != train:
                beta1 = group["betas"][0]
                for weights in group["params"]:
                    if self.state.get(weights):
                        weights.lerp_(self.state[weights]["z"], 1 - beta1 if train else 1 - 1 / beta1)
                group["train_mode"] = train
