"""RMSprop, torch's."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import Eps, LearningRate, Momentum, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("RMSprop")
def rmsprop(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-2,
    alpha: Annotated[float, Field(ge=0, lt=1, description="smoothing of the squared gradient")] = 0.99,
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.0,
    momentum: Momentum = 0.0,
    centered: Annotated[bool, Field(description="divide by the running standard deviation instead")] = False,
) -> torch.optim.RMSprop:
    """Gradient divided by a running root mean square: w <- w - lr g / (sqrt(v) + eps).

    Shapes: any. Range: `lr` > 0. Reference: Hinton, 2012; `torch.optim.RMSprop`.

    ```yaml
    optim_g:
      type: RMSprop
      lr: 1.0e-4
    ```
    """
    return torch.optim.RMSprop(
        parameters,
        lr=lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        centered=centered,
        foreach=True,
    )
