"""StableAdamW, of pytorch_optimizer."""

from __future__ import annotations

import torch
from torch import Tensor

from traiNNer.optimizers import Betas, Eps, LearningRate, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("StableAdamW")
def stable_adamw(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-3,
    betas: Betas = (0.9, 0.99),
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.01,
) -> torch.optim.Optimizer:
    """AdamW whose rate is divided, for each tensor, by max(1, RMS(g / sqrt(v))): a gradient that jumps is held back.

    Shapes: any. Range: `lr` > 0.
    Reference: Wortsman et al., NeurIPS 2023, algorithm 2; `pytorch_optimizer.StableAdamW`.

    ```yaml
    optim_g:
      type: StableAdamW
      lr: 1.0e-4
      betas: [0.9, 0.99]
    ```
    """
    from pytorch_optimizer import StableAdamW

    return StableAdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, kahan_sum=False)
