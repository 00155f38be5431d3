"""Adan, of pytorch_optimizer."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import Eps, LearningRate, ThreeBetas, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("Adan")
def adan(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-3,
    betas: ThreeBetas = (0.98, 0.92, 0.99),
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.0,
    no_prox: Annotated[
        bool, Field(description="w (1 - lr weight_decay) before the step, not a division after")
    ] = False,
) -> torch.optim.Optimizer:
    """Adam with Nesterov momentum from gradient differences: w <- (w - lr (m + b2 d) / (sqrt(n) + eps)) / (1 + lr wd).

    m is the mean of the gradient g, d of its change c = g - previous g, n of (g + b2 c)^2, with rates b1, b2 and b3.

    Shapes: any. Range: `lr` > 0.
    Reference: Xie et al., IEEE TPAMI 46(12), 2024, algorithm 1; `pytorch_optimizer.Adan`.

    ```yaml
    optim_g:
      type: Adan
      lr: 5.0e-4
      betas: [0.98, 0.92, 0.99]
    ```
    """
    from pytorch_optimizer import Adan

    return Adan(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, weight_decouple=no_prox)
