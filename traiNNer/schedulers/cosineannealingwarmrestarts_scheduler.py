"""CosineAnnealingWarmRestarts as a closed form."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Length, Schedule
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("CosineAnnealingWarmRestarts")
def cosineannealingwarmrestarts(
    total_iter: int,
    /,
    *,
    T_0: Annotated[Length, Field(description="iterations of the first cycle")],  # noqa: N803 - torch's name
    T_mult: Annotated[  # noqa: N803
        int, Field(ge=1, description="factor from the length of a cycle to that of the next")
    ] = 1,
    eta_min: Annotated[float, Field(ge=0, description="lowest rate")] = 0.0,
) -> Schedule:
    """m + (1 - m) (1 + cos(pi t / T)) / 2, t iterations into a cycle of length T, m = eta_min / base rate.

    Shapes: none. Range: [m, 1]. The cycles last T_0, T_0 T_mult, T_0 T_mult^2, ... iterations.
    Reference: Loshchilov and Hutter, ICLR 2017, equation 5; `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.

    ```yaml
    scheduler:
      type: CosineAnnealingWarmRestarts
      T_0: 10000
      T_mult: 2
      eta_min: 1.0e-7
    ```
    """

    def factor(iteration: int, base_lr: float) -> float:
        since, length = iteration - 1, T_0
        if T_mult == 1:
            since %= length
        while since >= length:
            since, length = since - length, length * T_mult
        lowest = eta_min / base_lr
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * since / length)) / 2

    return factor
