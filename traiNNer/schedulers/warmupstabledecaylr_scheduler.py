"""WarmupStableDecayLR as a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from traiNNer.schedulers import Length, Schedule
from traiNNer.utils.fields import Iterations
from traiNNer.utils.registry import SCHEDULERS

Phase = Annotated[Iterations, Field(ge=0)]
_DECAYS: dict[str, Callable[[float], float]] = {
    "1-sqrt": lambda done: 1 - math.sqrt(done),
    "linear": lambda done: 1 - done,
    "1-square": lambda done: 1 - done**2,
}
"""From 1 to 0 over the decay; the cosine has a number of cycles."""


@SCHEDULERS.register("WarmupStableDecayLR", "get_wsd_schedule")
def warmupstabledecaylr(
    total_iter: int,
    /,
    *,
    num_warmup_steps: Annotated[Phase, Field(description="iterations W in which the rate rises from 0")] = 0,
    num_stable_steps: Annotated[
        Phase | None, Field(description="iterations S at the base rate; what is left of total_iter unless given")
    ] = None,
    num_decay_steps: Annotated[
        Length | None, Field(description="iterations D in which the rate falls; total_iter // 10 unless given")
    ] = None,
    min_lr_ratio: Annotated[float, Field(ge=0, le=1, description="rate after the decay over the base rate")] = 0.0,
    num_cycles: Annotated[float, Field(gt=0, description="waves of the cosine in the decay; 0.5 is down once")] = 0.5,
    cooldown_type: Annotated[
        Literal["cosine", "1-sqrt", "linear", "1-square"], Field(description="shape of the decay")
    ] = "1-sqrt",
) -> Schedule:
    """(i - 1) / W in the warm-up, then 1, then m + (1 - m) shape(t / D) in the decay, then m = min_lr_ratio.

    shape(p) is 1 - sqrt(p), 1 - p, 1 - p^2 or (1 + cos(2 pi num_cycles p)) / 2. The phases have W, S and D iterations.

    Shapes: none. Range: [0, 1]; with a warm-up the rate of the first iteration is 0 (`warmup_iter` starts above it).
    Reference: Hu et al., "MiniCPM", COLM 2024, equation 1; Hägele et al., NeurIPS 2024 (1 - sqrt); pytorch_optimizer's
    `get_wsd_schedule`. There, shapes other than the cosine fall to 0 and jump up to min_lr_ratio; here they end at it.

    ```yaml
    scheduler:
      type: WarmupStableDecayLR
      num_decay_steps: 20000
      cooldown_type: 1-sqrt
    ```
    """
    decay = num_decay_steps or max(1, total_iter // 10)
    stable = max(0, total_iter - num_warmup_steps - decay) if num_stable_steps is None else num_stable_steps
    begin = num_warmup_steps + stable

    def shape(done: float) -> float:
        if cooldown_type == "cosine":
            return (1 + math.cos(2 * math.pi * num_cycles * done)) / 2
        return _DECAYS[cooldown_type](done)

    def factor(iteration: int, base_lr: float) -> float:
        passed = iteration - 1
        if passed < num_warmup_steps:
            return passed / num_warmup_steps
        if passed < begin:
            return 1.0
        if passed < begin + decay:
            return min_lr_ratio + (1 - min_lr_ratio) * shape((passed - begin) / decay)
        return min_lr_ratio

    return factor
