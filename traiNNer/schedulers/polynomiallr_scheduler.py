"""PolynomialLR as a closed form."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Length, Schedule
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("PolynomialLR")
def polynomiallr(
    total_iter: int,
    /,
    *,
    total_iters: Annotated[
        Length | None, Field(description="iterations from the base rate to 0; total_iter unless given")
    ] = None,
    power: Annotated[float, Field(gt=0, description="exponent")] = 1.0,
) -> Schedule:
    """(1 - min(1, (i - 1) / total_iters))^power.

    Shapes: none. Range: [0, 1].
    Reference: `torch.optim.lr_scheduler.PolynomialLR`, with another default of total_iters (5 there).

    ```yaml
    scheduler:
      type: PolynomialLR
      power: 0.9
    ```
    """
    length = total_iters or total_iter

    def factor(iteration: int, base_lr: float) -> float:
        return max(0.0, 1 - (iteration - 1) / length) ** power

    return factor
