"""SGD, torch's."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import LearningRate, Momentum, WeightDecay
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("SGD")
def sgd(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-3,
    momentum: Momentum = 0.0,
    weight_decay: WeightDecay = 0.0,
    nesterov: Annotated[bool, Field(description="Nesterov momentum; needs momentum > 0")] = False,
) -> torch.optim.SGD:
    """Stochastic gradient descent with momentum: v <- momentum v + g; w <- w - lr v.

    Shapes: any. Range: `lr` > 0. Reference: `torch.optim.SGD`.

    ```yaml
    optim_g:
      type: SGD
      lr: 1.0e-2
      momentum: 0.9
    ```
    """
    if nesterov and momentum == 0:
        raise ConfigError(Problem(key="nesterov", message="found true with momentum 0; accepted: with momentum > 0"))
    return torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, foreach=True
    )
