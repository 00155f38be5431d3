"""MultiStepRestartLR as a closed form."""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated

from pydantic import AfterValidator, Field

from traiNNer.schedulers import Milestones, RestartWeights, Schedule, restart_weights_for
from traiNNer.utils.fields import Iterations
from traiNNer.utils.registry import SCHEDULERS


def _distinct(restarts: list[int]) -> list[int]:
    if restarts != sorted(set(restarts)):
        raise ValueError("different restarts in ascending order")
    return restarts


@SCHEDULERS.register("MultiStepRestartLR")
def multisteprestartlr(
    total_iter: int,
    /,
    *,
    milestones: Milestones,
    gamma: Annotated[float, Field(gt=0, le=1, description="factor at each milestone")] = 0.1,
    restarts: Annotated[
        Annotated[list[Annotated[Iterations, Field(ge=0)]], AfterValidator(_distinct)] | None,
        Field(description="iterations after which the rate is the base rate times a restart weight; [0] unless given"),
    ] = None,
    restart_weights: RestartWeights = None,
) -> Schedule:
    """w gamma^n: w the weight of the last restart, n the milestones passed after it; both act from the next iteration.

    Shapes: none. Range: (0, max w].
    Reference: BasicSR's scheduler of this name. A milestone at a restart has no effect, as there; without a restart at
    0 the first weight is 1.

    ```yaml
    scheduler:
      type: MultiStepRestartLR
      milestones: [50000, 90000, 150000]
      gamma: 0.5
      restarts: [0, 100000]
      restart_weights: [1, 0.5]
    ```

    Raises:
        ConfigError: there are more or fewer restart weights than restarts.
    """
    begins = [0] if restarts is None else restarts
    parts = list(zip(begins, restart_weights_for(begins, restart_weights, "restarts"), strict=True))

    def factor(iteration: int, base_lr: float) -> float:
        begin, weight = next(((r, w) for r, w in reversed(parts) if r < iteration), (0, 1.0))
        passed = bisect_left(milestones, iteration) - bisect_left(milestones, begin + 1)
        return weight * gamma**passed

    return factor
