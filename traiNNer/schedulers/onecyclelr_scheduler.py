"""OneCycleLR as a closed form."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from traiNNer.schedulers import Length
from traiNNer.utils.registry import SCHEDULERS

Share = Annotated[float, Field(ge=0, lt=1)]


@SCHEDULERS.register("OneCycleLR")
class OneCycleLR:
    """From f = max_lr / div_factor up to max_lr, then down to f / final_div_factor; each way half a cosine or a line.

    The top is reached at iteration pct_start total_steps. With three phases the rate is back at f after as many
    iterations again, less 1, and sinks to f / final_div_factor in the rest. `cycle_momentum` moves the momentum (beta1)
    the other way: from max_momentum to base_momentum and back.

    Shapes: none. Range: (0, max_lr / base rate].
    Reference: Smith and Topin, "Super-Convergence", 2017; `torch.optim.lr_scheduler.OneCycleLR`. Here max_lr is the
    component's lr unless given, cycle_momentum is off, and past total_steps the last value holds (torch raises).

    ```yaml
    scheduler:
      type: OneCycleLR
      max_lr: 1.0e-3
      pct_start: 0.3
      div_factor: 25
      final_div_factor: 1.0e+4
    ```
    """

    def __init__(
        self,
        total_iter: int,
        /,
        *,
        max_lr: Annotated[float | None, Field(gt=0, description="highest rate; lr unless given")] = None,
        total_steps: Annotated[
            Length | None, Field(description="iterations of the cycle; total_iter unless given")
        ] = None,
        pct_start: Annotated[float, Field(ge=0, le=1, description="share of the cycle in which the rate rises")] = 0.3,
        anneal_strategy: Annotated[Literal["cos", "linear"], Field(description="shape of the phases")] = "cos",
        cycle_momentum: Annotated[bool, Field(description="cycle the momentum (beta1) too")] = False,
        base_momentum: Annotated[Share, Field(description="momentum at the highest rate")] = 0.85,
        max_momentum: Annotated[Share, Field(description="momentum at the start and the end")] = 0.95,
        div_factor: Annotated[float, Field(gt=0, description="max_lr over the first rate")] = 25.0,
        final_div_factor: Annotated[float, Field(gt=0, description="first rate over the last rate")] = 1e4,
        three_phase: Annotated[bool, Field(description="fall as fast as it rose, then to the lowest rate")] = False,
    ) -> None:
        self._max_lr, self._cosine = max_lr, anneal_strategy == "cos"
        self._last = (total_steps or total_iter) - 1
        top = pct_start * (self._last + 1) - 1
        self._ends = [top, 2 * top, self._last] if three_phase else [top, self._last]
        first = 1 / div_factor
        lowest = first / final_div_factor
        self._rates = [first, 1.0, first, lowest] if three_phase else [first, 1.0, lowest]
        high, low = max_momentum, base_momentum
        momenta = [high, low, high, high] if three_phase else [high, low, high]
        self._momenta = momenta if cycle_momentum else None

    def __call__(self, iteration: int, base_lr: float) -> float:
        """Factor on the base rate."""
        factor = self._between(self._rates, iteration)
        return factor if self._max_lr is None else factor * (self._max_lr / base_lr)

    def momentum(self, iteration: int) -> float | None:
        """The momentum at an iteration, from 1; None without `cycle_momentum`."""
        return None if self._momenta is None else self._between(self._momenta, iteration)

    def _between(self, corners: list[float], iteration: int) -> float:
        step = min(iteration - 1, self._last)
        phase = next((number for number, end in enumerate(self._ends) if step <= end), len(self._ends) - 1)
        begin, end = self._ends[phase - 1] if phase else 0.0, self._ends[phase]
        done = (step - begin) / (end - begin) if end > begin else 1.0
        done = (1 - math.cos(math.pi * done)) / 2 if self._cosine else done
        return corners[phase] * (1 - done) + corners[phase + 1] * done
