"""ConstantLR as a closed form."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Length, Schedule
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("ConstantLR")
def constantlr(
    total_iter: int,
    /,
    *,
    factor: Annotated[float, Field(ge=0, le=1, description="factor in the first total_iters iterations")] = 1.0,
    total_iters: Annotated[
        Length | None, Field(description="iterations with the factor; total_iter unless given")
    ] = None,
) -> Schedule:
    """The factor while i <= total_iters, then 1.

    Shapes: none. Range: {factor, 1}.
    Reference: `torch.optim.lr_scheduler.ConstantLR`, with other defaults (1/3 over 5 iterations there); a factor of 0,
    at whose end torch divides by it, is accepted.

    ```yaml
    scheduler:
      type: ConstantLR
      factor: 0.1
      total_iters: 10000
    ```
    """
    length = total_iters or total_iter

    def value(iteration: int, base_lr: float) -> float:
        return factor if iteration <= length else 1.0

    return value
