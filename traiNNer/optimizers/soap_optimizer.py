"""SOAP, of pytorch_optimizer."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.optimizers import Betas, Eps, LearningRate, WeightDecay
from traiNNer.utils.registry import OPTIMIZERS


@OPTIMIZERS.register("SOAP")
def soap(
    parameters: list[Tensor],
    /,
    *,
    lr: LearningRate = 3e-3,
    betas: Betas = (0.95, 0.95),
    shampoo_beta: Annotated[
        float | None, Field(ge=0, lt=1, description="decay rate of the matrices L and R; null: that of the square")
    ] = None,
    eps: Eps = 1e-8,
    weight_decay: WeightDecay = 0.01,
    precondition_frequency: Annotated[int, Field(ge=1, description="steps between two updates of the bases")] = 10,
    max_precondition_dim: Annotated[int, Field(ge=1, description="longer sides of a tensor get no matrix")] = 10000,
    precondition_1d: Annotated[bool, Field(description="a matrix for biases and the like too")] = False,
    correct_bias: Annotated[bool, Field(description="Adam's bias correction")] = True,
    normalize_gradient: Annotated[bool, Field(description="scale each tensor's update to an RMS of 1")] = False,
) -> torch.optim.Optimizer:
    """Adam in the eigenbases of Shampoo's matrices: w <- w - lr Q_L Adam(Q_L^T g Q_R) Q_R^T - lr weight_decay w.

    Q_L and Q_R are the bases of L = mean(g g^T) and R = mean(g^T g); a kernel (O, I, h, w) has one for each side. The
    first step only measures them.

    Shapes: any; a side of n needs two matrices n x n. Range: `lr` > 0.
    Reference: Vyas et al., ICLR 2025, algorithm 3; `pytorch_optimizer.SOAP`.

    ```yaml
    optim_g:
      type: SOAP
      lr: 3.0e-4
      max_precondition_dim: 1024
    ```
    """
    from pytorch_optimizer import SOAP

    return SOAP(
        parameters,
        lr=lr,
        betas=betas,
        shampoo_beta=betas[1] if shampoo_beta is None else shampoo_beta,
        eps=eps,
        weight_decay=weight_decay,
        precondition_frequency=precondition_frequency,
        max_precondition_dim=max_precondition_dim,
        precondition_1d=precondition_1d,
        correct_bias=correct_bias,
        normalize_gradient=normalize_gradient,
    )
