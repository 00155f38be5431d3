"""Lion, of pytorch_optimizer."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import Betas, LearningRate, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("Lion")
def lion(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: WeightDecay = 0.0,
    decoupled_weight_decay: Annotated[bool, Field(description="decay the weights themselves, as AdamW does")] = True,
) -> torch.optim.Optimizer:
    """The sign of an interpolated momentum: w <- w - lr (sign(b1 m + (1 - b1) g) + weight_decay w), m of rate b2.

    Every weight moves by lr in every step: a tenth to a third of Adam's rate and 3 to 10 times its weight decay.

    Shapes: any. Range: `lr` > 0. Reference: Chen et al., NeurIPS 2023, program 1; `pytorch_optimizer.Lion`.

    ```yaml
    optim_g:
      type: Lion
      lr: 2.0e-5
      betas: [0.9, 0.95]
      weight_decay: 0.01
      decoupled_weight_decay: true
    ```
    """
    from pytorch_optimizer import Lion

    return Lion(parameters, lr=lr, betas=betas, weight_decay=weight_decay, weight_decouple=decoupled_weight_decay)
