"""Adam, torch's."""

from __future__ import annotations

import torch
from torch import Tensor

from traiNNer.optimizers import AmsGrad, Betas, Eps, LearningRate, WeightDecay, skips_on_device
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("Adam")
def adam(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.0,
    amsgrad: AmsGrad = False,
) -> torch.optim.Adam:
    """Adam: w <- w - lr m / (sqrt(v) + eps); weight decay is added to the gradient.

    Shapes: any. Range: `lr` > 0. Reference: Kingma and Ba, ICLR 2015; `torch.optim.Adam`.

    ```yaml
    optim_g:
      type: Adam
      lr: 1.0e-4
      betas: [0.9, 0.99]
    ```
    """
    return torch.optim.Adam(
        parameters,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        fused=skips_on_device(parameters),
    )
