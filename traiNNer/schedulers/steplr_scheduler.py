"""StepLR as a closed form."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Length, Schedule
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("StepLR")
def steplr(
    total_iter: int,
    /,
    *,
    step_size: Annotated[
        Length | None, Field(description="iterations between two reductions; total_iter // 10 unless given")
    ] = None,
    gamma: Annotated[float, Field(gt=0, le=1, description="factor of each reduction")] = 0.1,
) -> Schedule:
    """gamma^n, n = floor((i - 1) / step_size); a step_size of 10000 acts from iteration 10001.

    Shapes: none. Range: (0, 1]. Reference: `torch.optim.lr_scheduler.StepLR`.

    ```yaml
    scheduler:
      type: StepLR
      step_size: 10000
      gamma: 0.5
    ```
    """
    length = step_size or max(1, total_iter // 10)

    def factor(iteration: int, base_lr: float) -> float:
        return gamma ** ((iteration - 1) // length)

    return factor
