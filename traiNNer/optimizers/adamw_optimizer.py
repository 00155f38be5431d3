"""AdamW, torch's."""

from __future__ import annotations

import torch
from torch import Tensor

from traiNNer.optimizers import AmsGrad, Betas, Eps, LearningRate, WeightDecay, skips_on_device
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("AdamW")
def adamw(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.01,
    amsgrad: AmsGrad = False,
) -> torch.optim.AdamW:
    """Adam with decoupled weight decay: w <- w - lr (m / (sqrt(v) + eps) + weight_decay w).

    Shapes: any. Range: `lr` > 0. Reference: Loshchilov and Hutter, ICLR 2019; `torch.optim.AdamW`.

    ```yaml
    optim_g:
      type: AdamW
      lr: 1.0e-4
      betas: [0.9, 0.99]
      weight_decay: 0
    ```
    """
    return torch.optim.AdamW(
        parameters,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        fused=skips_on_device(parameters),
    )
