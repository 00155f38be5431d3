"""LinearLR as a closed form."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Length, Schedule
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("LinearLR")
def linearlr(
    total_iter: int,
    /,
    *,
    start_factor: Annotated[float, Field(ge=0, le=1, description="factor in the first iteration")] = 1.0,
    end_factor: Annotated[float, Field(ge=0, le=1, description="factor after total_iters iterations")] = 0.1,
    total_iters: Annotated[
        Length | None, Field(description="iterations from start_factor to end_factor; total_iter unless given")
    ] = None,
) -> Schedule:
    """s + (e - s) min(1, (i - 1) / total_iters), s the start_factor and e the end_factor.

    Shapes: none. Range: between s and e.
    Reference: `torch.optim.lr_scheduler.LinearLR`, with other defaults (1/3 to 1 over 5 iterations there).

    ```yaml
    scheduler:
      type: LinearLR
      start_factor: 1.0
      end_factor: 0.25
    ```
    """
    length = total_iters or total_iter

    def factor(iteration: int, base_lr: float) -> float:
        done = min(1.0, (iteration - 1) / length)
        return start_factor * (1 - done) + end_factor * done

    return factor
