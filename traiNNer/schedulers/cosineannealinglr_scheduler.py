"""CosineAnnealingLR as a closed form."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Length, Schedule
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("CosineAnnealingLR")
def cosineannealinglr(
    total_iter: int,
    /,
    *,
    T_max: Annotated[  # noqa: N803 - torch's name
        Length | None, Field(description="iterations from the base rate to the lowest; total_iter unless given")
    ] = None,
    eta_min: Annotated[float | None, Field(ge=0, description="lowest rate; replaces eta_min_factor")] = None,
    eta_min_factor: Annotated[
        float | None, Field(ge=0, le=1, description="lowest rate as a fraction of the base rate; 0.1 unless given")
    ] = None,
) -> Schedule:
    """m + (1 - m) (1 + cos(pi (i - 1) / T_max)) / 2, m the lowest rate over the base rate.

    Shapes: none. Range: [m, 1]. Past T_max the cosine rises again, as torch's does.
    Reference: Loshchilov and Hutter, ICLR 2017; `torch.optim.lr_scheduler.CosineAnnealingLR`.

    ```yaml
    scheduler:
      type: CosineAnnealingLR
      eta_min_factor: 0.01
    ```

    Raises:
        ConfigError: both `eta_min` and `eta_min_factor` are given.
    """
    if eta_min is not None and eta_min_factor is not None:
        raise ConfigError(Problem(key="eta_min", message="found beside eta_min_factor; accepted: one of the two"))
    length = T_max or total_iter

    def factor(iteration: int, base_lr: float) -> float:
        lowest = eta_min / base_lr if eta_min is not None else 0.1 if eta_min_factor is None else eta_min_factor
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * (iteration - 1) / length)) / 2

    return factor
