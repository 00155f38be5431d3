"""Schedule-free AdamW, of pytorch_optimizer."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import AveragePower, Eps, LearningRate, RatePower, WarmupSteps, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("AdamWScheduleFree", "ScheduleFreeAdamW")
def adamw_schedule_free(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 2.5e-3,
    betas: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
        Field(description="share of the average in the training weights; decay rate of the mean square"),
    ] = (0.9, 0.999),
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.0,
    warmup_steps: WarmupSteps = 0,
    r: AveragePower = 0.0,
    weight_lr_power: RatePower = 2.0,
) -> torch.optim.Optimizer:
    """AdamW without momentum at z, trained at y = (1 - b1) z + b1 x; x, the mean of all z, is what is released.

    z <- z - lr (g / (sqrt(v) + eps) + weight_decay y); x <- (1 - c) x + c z, with c the step's share of all steps.
    It takes a constant rate, perhaps with a warm-up: the average does what a falling rate would.

    Shapes: any. Range: `lr` > 0, often 1 to 10 times AdamW's.
    Reference: Defazio et al., NeurIPS 2024, algorithm 1; `pytorch_optimizer.ScheduleFreeAdamW`.

    ```yaml
    optim_g:
      type: AdamWScheduleFree
      lr: 2.0e-3
      betas: [0.9, 0.99]
      warmup_steps: 100
    ```
    """
    from pytorch_optimizer import ScheduleFreeAdamW

    return ScheduleFreeAdamW(
        parameters,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        r=r,
        weight_lr_power=weight_lr_power,
    )
