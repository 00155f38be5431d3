"""MultiStepLR as a closed form."""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Milestones, Schedule
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("MultiStepLR")
def multisteplr(
    total_iter: int,
    /,
    *,
    milestones: Milestones,
    gamma: Annotated[float, Field(gt=0, le=1, description="factor at each milestone")] = 0.1,
) -> Schedule:
    """gamma^n, n the number of milestones passed; a milestone of 40000 acts from iteration 40001.

    Shapes: none. Range: (0, 1]. Reference: `torch.optim.lr_scheduler.MultiStepLR`.

    ```yaml
    scheduler:
      type: MultiStepLR
      milestones: [40000, 50000, 55000]
      gamma: 0.5
    ```
    """

    def factor(iteration: int, base_lr: float) -> float:
        return gamma ** bisect_left(milestones, iteration)

    return factor
