"""Prodigy, of pytorch_optimizer."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import Betas, Eps, LearningRate, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("Prodigy")
def prodigy(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1.0,
    betas: Betas = (0.9, 0.999),
    beta3: Annotated[
        float | None,
        Field(ge=0, lt=1, description="decay rate of the sums that d is estimated from; null: sqrt(beta2)"),
    ] = None,
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.0,
    d0: Annotated[float, Field(gt=0, description="first estimate of d, of no matter if it is small")] = 1e-6,
    d_coef: Annotated[float, Field(gt=0, description="factor on the estimate of d; what to tune instead of lr")] = 1.0,
    growth_rate: Annotated[
        float | None, Field(gt=1, description="d grows by at most this factor a step; null: as it likes")
    ] = None,
    bias_correction: Annotated[bool, Field(description="Adam's bias correction")] = False,
    safeguard_warmup: Annotated[bool, Field(description="keep the estimate from growing by a warm-up alone")] = False,
) -> torch.optim.Optimizer:
    """Adam at the rate d lr, with d an estimate of the distance from the start to the solution that only grows.

    d_hat = d_coef r / |s|_1, with r the mean of (d / d0) d lr <g, w0 - w> and s that of (d / d0) d lr g, of rate beta3.
    The log has d lr as `lr_effective/<network>`. Each step waits for the device once, to read d_hat.

    Shapes: any. Range: `lr` > 0; 1 is meant, a schedule and a warm-up are factors on it.
    Reference: Mishchenko and Defazio, ICML 2024, algorithm 4; `pytorch_optimizer.Prodigy`.

    ```yaml
    optim_g:
      type: Prodigy
      lr: 1.0
      bias_correction: true
      safeguard_warmup: true
    ```
    """
    from pytorch_optimizer import Prodigy

    return Prodigy(
        parameters,
        lr=lr,
        betas=betas,
        beta3=beta3,
        eps=eps,
        weight_decay=weight_decay,
        d0=d0,
        d_coef=d_coef,
        growth_rate=float("inf") if growth_rate is None else growth_rate,
        bias_correction=bias_correction,
        safeguard_warmup=safeguard_warmup,
    )
