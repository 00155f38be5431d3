"""Early stopping: ends a run whose validations say that more of it gains nothing."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from traiNNer.training_automations.base import (
    Decision,
    Phase,
    RunFacts,
    StepFacts,
    StopTraining,
    ValidationFacts,
)
from traiNNer.training_automations.trend import slopes
from traiNNer.utils.errors import ConfigError, Problem, nearest
from traiNNer.utils.registry import AUTOMATIONS

DEFAULT_METRIC = "val/psnr"

WINDOW = 40
"""Validations that are remembered; the gain is measured over all of them."""

ENOUGH = 8
"""Validations that make a gain."""

WORSE = 3
"""Validations in a row that are worse than the best: overfitting."""

LOSS_WINDOW = 12
"""Mean training losses, one for each validation, that say whether it still falls."""

SPARE = 1.3
"""Times the patience: while the metric rises for certain, though noise hides it, the run goes on for as long."""

MAD_SHARE = 0.6745
"""Median absolute deviation of a normal distribution with standard deviation 1."""


class _Curve:
    """The validations since a phase began, higher is better."""

    def __init__(self, since: int) -> None:
        self.since = since
        """Iteration of the last improvement, or from which on one is waited for."""
        self.best: float | None = None
        self.count = 0
        """Validations among which the best was found."""
        self.points: list[list[float]] = []
        """[iteration, value] of the last ones."""
        self.losses: list[float] = []
        """Mean logarithm of the training loss before each of the last ones."""

    def add(self, iteration: int, value: float, min_improvement: float) -> None:
        """Note a finite value."""
        self.points = [*self.points, [iteration, value]][-WINDOW:]
        self.count += 1
        if self.best is None or value - self.best > min_improvement:
            self.best, self.since = value, iteration

    @property
    def noise(self) -> float:
        """Standard deviation of a validation about its trend, by successive differences."""
        steps = np.diff([value for _, value in self.points])
        return float(np.median(np.abs(steps - np.median(steps)))) / MAD_SHARE / math.sqrt(2)

    @property
    def shortfall(self) -> float:
        """By how much the last three are all worse than the best, beyond what noise does.

        The best of n validations stands about sqrt(2 ln n) deviations above what it would be without noise, and a
        validation one below: both are taken off. The deviation itself may be too small by a share of 4 / sqrt(n), three
        of its standard errors.
        """
        if self.best is None or self.count < ENOUGH:
            return 0.0
        worse = self.best - max(value for _, value in self.points[-WORSE:])
        noise = self.noise * (1 + 4 / math.sqrt(len(self.points) - 1))
        return worse - noise * (1 + math.sqrt(2 * math.log(self.count)))

    def gain(self, horizon: int, after: int = -1) -> tuple[float, float, float] | None:
        """Lower bound, estimate and upper bound of the gain per horizon after an iteration; None if unknown."""
        points = [point for point in self.points if point[0] > after]
        if len(points) < ENOUGH:
            return None
        iterations, values = np.array(points).T
        per_step = horizon * (len(iterations) - 1) / (iterations[-1] - iterations[0])
        low, slope, high = slopes(values)
        return per_step * low, per_step * slope, per_step * high

    @property
    def loss_falls(self) -> bool:
        """Whether the training loss falls, with confidence."""
        return len(self.losses) >= WORSE + 1 and slopes(np.array(self.losses))[2] < 0

    def state_dict(self) -> dict[str, Any]:
        """Numbers and lists."""
        return {
            "since": self.since,
            "best": self.best,
            "count": self.count,
            "points": [list(point) for point in self.points],
            "losses": list(self.losses),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.since, self.best, self.count = state_dict["since"], state_dict["best"], state_dict["count"]
        self.points, self.losses = [list(point) for point in state_dict["points"]], list(state_dict["losses"])


@AUTOMATIONS.register("IntelligentEarlyStopping", "early_stopping")
class IntelligentEarlyStopping:
    """Stops a run at max(v_1 ... v_n) + min_improvement >= v for `patience` iterations, v the validations of a metric.

    Two more reasons: convergence, where the upper 95 % bound of the gain per `max_no_improvement` iterations (Theil and
    Sen's slope over 8 to 40 validations) is below `improvement_threshold`; and overfitting, where three validations
    running are worse than the best by more than the noise while the training loss falls. Noise is the median absolute
    deviation of successive differences / 1.41, as a standard deviation. All differences are in the metric's unit.
    Where the slope over the last 2 `patience` iterations is above that threshold for certain, patience may last 1.3
    times as long. Validations before `warmup_iterations` do not count, and nothing stops before `min_iterations` and
    `min_epochs`. When a loss begins, ends or reaches its target, the patience starts again, and improvements are those
    over the validations that follow.

    Shapes: none. Range: stops after max(warmup_iterations, min_iterations, min_epochs) at the earliest.
    Reference: ours. Prechelt, "Early Stopping - But When?", Neural Networks: Tricks of the Trade, 1998, compares such
    criteria; three validations running are its UP_3.

    ```yaml
    training_automations:
      IntelligentEarlyStopping:
        patience: 2000
        monitor_metric: val/psnr
    ```

    Raises:
        ConfigError: at the start, a metric that no validation computes.
    """

    name = "IntelligentEarlyStopping"
    asked = "validation"
    max_adjustments = 1

    def __init__(
        self,
        *,
        monitor_metric: Annotated[
            str | None,
            Field(
                description="metric of the validations, such as val/psnr; null for val/psnr, while a GAN loss is live "
                "the first of the perceptual ones"
            ),
        ] = None,
        patience: Annotated[int, Field(ge=1, description="iterations without an improvement that end the run")] = 2000,
        min_improvement: Annotated[
            float, Field(ge=0, description="what is more than that is an improvement, unit of the metric")
        ] = 0.001,
        max_no_improvement: Annotated[
            int | None, Field(ge=1, description="iterations that improvement_threshold refers to; null for patience")
        ] = None,
        improvement_threshold: Annotated[
            float, Field(ge=0, description="gain below which the run has converged, unit of the metric")
        ] = 0.002,
        warmup_iterations: Annotated[int, Field(ge=0, description="iterations whose validations do not count")] = 1000,
        min_iterations: Annotated[int, Field(ge=0, description="iterations before which nothing stops")] = 0,
        min_epochs: Annotated[int, Field(ge=0, description="epochs before which nothing stops")] = 0,
    ) -> None:
        self._wanted, self._patience, self._min_improvement = monitor_metric, patience, min_improvement
        self._horizon, self._threshold = max_no_improvement or patience, improvement_threshold
        self._warmup, self._minima = warmup_iterations, (min_iterations, min_epochs)
        self._run = RunFacts(total_iter=0)
        self._metric = ""
        self._curve = _Curve(warmup_iterations)
        self._best: list[float] = []
        """Value and iteration of the best of the metric, of all phases."""
        self._loss = [0.0, 0.0]
        """Sum and number of logarithms of the training loss since the last validation."""
        self._due = False
        """Whether a validation has not been judged yet."""

    def start(self, run: RunFacts) -> list[str]:
        """What is watched, how many validations the patience is, and whether a stop is possible at all."""
        self._run = run
        if not run.val_freq or not run.better:
            return ["cannot stop this run: it has no validation that computes a metric"]
        if self._wanted is not None and self._wanted not in run.better:
            message = f"found {self._wanted}; accepted: {', '.join(run.better)}{nearest(self._wanted, run.better)}"
            raise ConfigError(Problem(key="monitor_metric", message=message))
        self._watch(run.first_iteration)
        count = math.ceil(self._patience / run.val_freq)
        line = (
            f"watches {self._metric} ({run.better[self._metric]} is better); stops after {self._patience} iterations "
            f"({count} {'validation' if count == 1 else 'validations'}) without an improvement by more than "
            f"{self._min_improvement:g}"
        )
        return [line, *self._impossible()]

    def _impossible(self) -> list[str]:
        name, first = max(self._earliest.items(), key=lambda item: item[1])
        if first < self._run.total_iter:
            return []
        return [f"cannot stop this run of {self._run.total_iter} iterations: {name} last until iteration {first}"]

    @property
    def _earliest(self) -> dict[str, int]:
        """Iterations before which nothing stops, by option."""
        iterations, epochs = self._minima
        return {
            f"warmup_iterations {self._warmup}": self._warmup,
            f"min_iterations {iterations}": iterations,
            f"min_epochs {epochs}": epochs * self._run.iterations_per_epoch,
        }

    def _metric_at(self, iteration: int) -> str:
        if self._wanted is not None:
            return self._wanted
        begin, better = self._run.adversarial_from, self._run.better
        if begin is not None and iteration >= begin:  # what a GAN loss is for lowers PSNR
            perceptual = next((metric for metric in better if metric in self._run.perceptual), None)
            if perceptual is not None:
                return perceptual
        return DEFAULT_METRIC if DEFAULT_METRIC in better else next(iter(better), DEFAULT_METRIC)

    def _watch(self, iteration: int) -> None:
        """Begin again if another metric is to be watched from this iteration on."""
        metric = self._metric_at(iteration)
        if metric != self._metric:
            self._metric, self._best = metric, []
            self._begin_again(iteration - 1)

    def observe_phase(self, iteration: int, what: Phase) -> None:
        """Other losses: patience starts again."""
        if what == "losses":
            self._begin_again(iteration)

    def _begin_again(self, iteration: int) -> None:
        """The best stays what it is, but what was trained for until now is no yardstick."""
        self._curve = _Curve(max(self._warmup, iteration))
        self._loss = [0.0, 0.0]

    def observe_step(self, step: StepFacts) -> None:
        """Add up the training loss."""
        self._watch(step.iteration)
        loss = sum(value for label, value in step.losses.items() if label in self._run.trend_losses)
        if step.applied and math.isfinite(loss) and loss > 0:
            self._loss = [self._loss[0] + math.log(loss), self._loss[1] + 1]

    def observe_validation(self, validation: ValidationFacts) -> None:
        """Note the metric and the training loss on the way to it."""
        self._watch(validation.iteration)
        (total, count), self._loss = self._loss, [0.0, 0.0]
        if validation.iteration < self._warmup:
            return
        self._due = True
        if count:
            self._curve.losses = [*self._curve.losses, total / count][-LOSS_WINDOW:]
        value = validation.metrics.get(self._metric, math.nan)
        if math.isfinite(value):
            upwards = self._sign * value
            self._curve.add(validation.iteration, upwards, self._min_improvement)
            if not self._best or upwards > self._sign * self._best[0]:
                self._best = [value, validation.iteration]

    @property
    def _sign(self) -> int:
        return -1 if self._run.better.get(self._metric) == "lower" else 1

    def decide(self, iteration: int) -> list[Decision]:
        """The end of the run, if the validation that was just taken says so."""
        due, self._due = self._due, False
        if not due or iteration < max(self._earliest.values()) or iteration >= self._run.total_iter:
            return []
        evidence: dict[str, float | int | str] = {"metric": self._metric}
        if self._best:
            evidence |= {"best": self._best[0], "best_iteration": int(self._best[1])}
        found = self._out_of_patience(iteration) or self._overfitting() or self._convergence()
        if found is None:
            return []
        reason, text, more = found
        self._due = True  # asked anew if the run is resumed from here
        text = f"Early stopping triggered - {text}"
        # A stop does not count: a run that goes on after it, with more patience, may be stopped again.
        return [StopTraining(reason=reason, text=text, evidence=evidence | more, counts=False)]

    def _out_of_patience(self, iteration: int) -> tuple[str, str, dict[str, float]] | None:
        waited = iteration - self._curve.since
        if waited < self._patience or (
            waited + self._run.val_freq <= SPARE * self._patience and self._rises(iteration)
        ):
            return None
        return "patience", f"no improvement in {self._metric} for {waited} iterations", {"iterations": waited}

    def _rises(self, iteration: int) -> bool:
        """Whether the metric gains the threshold for certain: noise may keep it below a lucky best for a while."""
        gain = self._curve.gain(self._horizon, iteration - 2 * self._patience)
        return gain is not None and gain[0] > self._threshold

    def _overfitting(self) -> tuple[str, str, dict[str, float]] | None:
        shortfall = self._curve.shortfall
        if shortfall <= 0 or not self._curve.loss_falls:
            return None
        text = f"overfitting: {self._metric} worse than its best for {WORSE} validations while the training loss falls"
        return "overfitting", text, {"noise": self._curve.noise, "beyond_noise": shortfall}

    def _convergence(self) -> tuple[str, str, dict[str, float]] | None:
        bounds = self._curve.gain(self._horizon)
        if bounds is None or bounds[2] >= self._threshold:
            return None
        low, gain, high = bounds
        text = f"{self._metric} has converged: gain below {self._threshold:g} per {self._horizon} iterations"
        return "convergence", text, {"lower": low, "gain": gain, "upper": high}

    def holding(self) -> list[Decision]:
        """Nothing: it changes nothing before it stops the run."""
        return []

    def fallback(self) -> list[Decision]:
        """Nothing: the run has its full duration."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """What was seen; whether a stop follows from it is asked anew, so that a stopped run can go on."""
        return {
            "metric": self._metric,
            "best": list(self._best),
            "curve": self._curve.state_dict(),
            "loss": list(self._loss),
            "due": self._due,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, unless the options want another metric now."""
        if self._wanted is not None and state_dict["metric"] != self._wanted:
            return
        self._metric, self._best = state_dict["metric"], list(state_dict["best"])
        self._curve.load_state_dict(state_dict["curve"])
        self._loss, self._due = list(state_dict["loss"]), state_dict["due"]
