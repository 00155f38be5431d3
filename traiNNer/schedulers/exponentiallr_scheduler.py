"""ExponentialLR as a closed form."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Schedule
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("ExponentialLR")
def exponentiallr(
    total_iter: int,
    /,
    *,
    gamma: Annotated[float, Field(gt=0, le=1, description="factor of each iteration")] = 0.95,
) -> Schedule:
    """gamma^(i - 1); the rate halves every ln 2 / (1 - gamma) iterations, 14 at 0.95 and 6,900 at 0.9999.

    Shapes: none. Range: (0, 1]. Reference: `torch.optim.lr_scheduler.ExponentialLR`.

    ```yaml
    scheduler:
      type: ExponentialLR
      gamma: 0.9999
    ```
    """

    def factor(iteration: int, base_lr: float) -> float:
        return gamma ** (iteration - 1)

    return factor
