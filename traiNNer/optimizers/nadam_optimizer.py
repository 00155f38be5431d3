"""NAdam, torch's."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import Betas, Eps, LearningRate, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("NAdam")
def nadam(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.0,
    momentum_decay: Annotated[float, Field(ge=0, description="decay of the momentum schedule")] = 4e-3,
    decoupled_weight_decay: Annotated[bool, Field(description="decay the weights themselves, as AdamW does")] = False,
) -> torch.optim.NAdam:
    """Adam with Nesterov momentum; weight decay is added to the gradient unless `decoupled_weight_decay`.

    Shapes: any. Range: `lr` > 0. Reference: Dozat, ICLR workshop 2016; `torch.optim.NAdam`.

    ```yaml
    optim_g:
      type: NAdam
      lr: 1.0e-4
    ```
    """
    return torch.optim.NAdam(
        parameters,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        momentum_decay=momentum_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        foreach=True,
    )
