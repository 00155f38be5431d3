"""RAdam, torch's."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import Betas, Eps, LearningRate, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("RAdam")
def radam(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.0,
    decoupled_weight_decay: Annotated[bool, Field(description="decay the weights themselves, as AdamW does")] = False,
) -> torch.optim.RAdam:
    """Adam with rectified variance at the start; weight decay is added to the gradient unless `decoupled_weight_decay`.

    Shapes: any. Range: `lr` > 0. Reference: Liu et al., ICLR 2020; `torch.optim.RAdam`.

    ```yaml
    optim_g:
      type: RAdam
      lr: 1.0e-4
    ```
    """
    return torch.optim.RAdam(
        parameters,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        foreach=True,
    )
