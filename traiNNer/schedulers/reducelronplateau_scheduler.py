"""ReduceLROnPlateau: the rate follows a validation metric."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import SCHEDULERS

DEFAULT_MONITORS = {"min": "val/loss", "max": "val/psnr"}


@SCHEDULERS.register("ReduceLROnPlateau")
class ReduceLROnPlateau:
    """factor^n, n the number of times that more than `patience` validations in a row brought no improvement.

    A value improves on the best one if it is below best (1 - threshold), or below best - threshold with
    `threshold_mode: abs`; with mode max, if it is above best (1 + threshold) or best + threshold. NaN never does. After
    a reduction the count starts again, and `cooldown` validations are not counted.

    Shapes: none. Range: [min_lr / base rate, 1].
    Reference: `torch.optim.lr_scheduler.ReduceLROnPlateau`, one step for each validation.

    ```yaml
    scheduler:
      type: ReduceLROnPlateau
      mode: max
      factor: 0.5
      patience: 5
      threshold: 1.0e-3
    ```

    Raises:
        ConfigError: a relative threshold of 1 or more, by which no loss could improve.
    """

    def __init__(
        self,
        total_iter: int,
        /,
        *,
        mode: Annotated[
            Literal["min", "max"], Field(description="whether a lower or a higher value is better")
        ] = "min",
        monitor: Annotated[
            str | None,
            Field(min_length=1, description="metric; val/loss with mode min, val/psnr with mode max, unless given"),
        ] = None,
        factor: Annotated[float, Field(gt=0, lt=1, description="factor of each reduction")] = 0.1,
        patience: Annotated[int, Field(ge=0, description="validations without improvement that are let pass")] = 10,
        threshold: Annotated[float, Field(ge=0, description="smallest change that is an improvement")] = 1e-4,
        threshold_mode: Annotated[
            Literal["rel", "abs"], Field(description="whether threshold is a share of the best value or a difference")
        ] = "rel",
        cooldown: Annotated[int, Field(ge=0, description="validations after a reduction that are not counted")] = 0,
        min_lr: Annotated[float, Field(ge=0, description="lowest rate")] = 0.0,
        eps: Annotated[
            float, Field(ge=0, description="a reduction of the rate by no more than this is left out")
        ] = 1e-8,
    ) -> None:
        if threshold_mode == "rel" and threshold >= 1:
            message = f"found {threshold} of the best value; accepted: less than 1, or threshold_mode: abs"
            raise ConfigError(Problem(key="threshold", message=message))
        self.mode: Literal["min", "max"] = mode
        self.monitor: str = monitor or DEFAULT_MONITORS[mode]
        self.patience = patience
        self._factor, self._min_lr, self._eps = factor, min_lr, eps
        self._threshold, self._relative, self._cooldown = threshold, threshold_mode == "rel", cooldown
        self._reductions = 0
        self._forget()

    def _forget(self) -> None:
        self._best = math.inf if self.mode == "min" else -math.inf
        self._bad = self._cooling = 0

    def __call__(self, iteration: int, base_lr: float) -> float:
        """Factor on the base rate since the last validation; the same in every iteration until the next one."""
        rate = base_lr
        for _ in range(self._reductions):
            lower = max(rate * self._factor, self._min_lr)
            if rate - lower <= self._eps:  # nor will it change by a further reduction
                break
            rate = lower
        return rate / base_lr

    def observe(self, value: float) -> bool:
        """Take the metric of a validation; True when that was one without improvement too many.

        The rate is reduced then, unless `min_lr` or `eps` holds it.
        """
        if self._improves(value):
            self._best, self._bad = value, 0
        else:
            self._bad += 1
        if self._cooling > 0:
            self._cooling, self._bad = self._cooling - 1, 0
        if self._bad <= self.patience:
            return False
        self._reductions, self._cooling, self._bad = self._reductions + 1, self._cooldown, 0
        return True

    def _improves(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        margin = self._best * (1 + sign * self._threshold) if self._relative else self._best + sign * self._threshold
        return value > margin if self.mode == "max" else value < margin

    def state_dict(self) -> dict[str, Any]:
        """What the validations said; the options are not in it, so that the file's hold after a resume."""
        return {
            "monitor": self.monitor,
            "mode": self.mode,
            "best": self._best,
            "bad_validations": self._bad,
            "cooldown_left": self._cooling,
            "reductions": self._reductions,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; if it is of another metric or mode, only the reductions, because its best says nothing."""
        self._reductions = state_dict["reductions"]
        if (state_dict["monitor"], state_dict["mode"]) != (self.monitor, self.mode):
            self._forget()
            return
        self._best, self._bad = state_dict["best"], state_dict["bad_validations"]
        self._cooling = state_dict["cooldown_left"]
