"""ADOPT, of pytorch_optimizer."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import Betas, Eps, LearningRate, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("ADOPT")
def adopt(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 1e-3,
    betas: Betas = (0.9, 0.9999),
    eps: Eps = 1e-6,
    weight_decay: WeightDecay = 0.0,
    weight_decouple: Annotated[bool, Field(description="decay the weights themselves, as AdamW does")] = False,
) -> torch.optim.Optimizer:
    """Adam that divides by the previous mean square: m <- b1 m + (1 - b1) clip(g / max(sqrt(v), eps)); w <- w - lr m.

    v is updated after w; the quotient is clipped to t^0.25 in step t; the first step only measures v. It converges for
    any b2.

    Shapes: any. Range: `lr` > 0.
    Reference: Taniguchi et al., NeurIPS 2024, algorithm 2; `pytorch_optimizer.ADOPT`.

    ```yaml
    optim_g:
      type: ADOPT
      lr: 1.0e-4
    ```
    """
    from pytorch_optimizer import ADOPT

    return ADOPT(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, weight_decouple=weight_decouple)
