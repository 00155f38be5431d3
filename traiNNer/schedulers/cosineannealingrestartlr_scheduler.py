"""CosineAnnealingRestartLR as a closed form."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import Annotated

from pydantic import Field

from traiNNer.schedulers import Length, RestartWeights, Schedule, restart_weights_for
from traiNNer.utils.registry import SCHEDULERS


@SCHEDULERS.register("CosineAnnealingRestartLR")
def cosineannealingrestartlr(
    total_iter: int,
    /,
    *,
    periods: Annotated[list[Length], Field(min_length=1, description="iterations of each cycle")],
    restart_weights: RestartWeights = None,
    eta_min: Annotated[float, Field(ge=0, description="lowest rate")] = 0.0,
) -> Schedule:
    """m + w (1 - m) (1 + cos(pi t / T)) / 2: t in a cycle of length T and weight w, m = eta_min / base rate.

    Shapes: none. Range: [m, m + (1 - m) max w]. The last value of a cycle, m, belongs to it; after the last cycle the
    rate stays there.
    Reference: BasicSR's scheduler of this name, which fails after the last cycle.

    ```yaml
    scheduler:
      type: CosineAnnealingRestartLR
      periods: [50000, 50000, 100000]
      restart_weights: [1, 0.5, 0.5]
      eta_min: 1.0e-7
    ```

    Raises:
        ConfigError: there are more or fewer restart weights than periods.
    """
    weights = restart_weights_for(periods, restart_weights, "periods")
    ends = list(accumulate(periods))

    def factor(iteration: int, base_lr: float) -> float:
        passed = min(iteration - 1, ends[-1])
        cycle = bisect_left(ends, passed)
        since = passed - ends[cycle] + periods[cycle]
        lowest = eta_min / base_lr
        return lowest + weights[cycle] * (1 - lowest) * (1 + math.cos(math.pi * since / periods[cycle])) / 2

    return factor
