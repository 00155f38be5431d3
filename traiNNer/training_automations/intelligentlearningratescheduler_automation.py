"""A factor on the learning rate that follows what the training loss and a metric say."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from traiNNer.training_automations.base import (
    Decision,
    Note,
    Phase,
    RunFacts,
    SetLearningRateFactor,
    SetSchedule,
    StepFacts,
    ValidationFacts,
)
from traiNNer.training_automations.fallback_schedule import check_fallback, fallback_schedule
from traiNNer.training_automations.rate_window import WINDOWS, Noise, RateState, Statement, Window
from traiNNer.training_automations.trend import MetricTrend, Trend, Verdict
from traiNNer.utils.errors import ConfigError, Problem, nearest
from traiNNer.utils.registry import AUTOMATIONS

Strategy: TypeAlias = Literal["adaptive", "plateau", "cosine", "exponential"]

MULTIPLIERS: dict[Statement, float] = {"divergence": 0.5, "plateau detection": 0.8, "steady improvement": 1.25}

BLOCKS = 10
"""Blocks of a horizon."""

PATIENCE, LARGE = 1000, 500_000
"""Default plateau_patience, and the parameters of a network above which it is twice that."""

STEP = math.log(1.05)
"""A decay is followed in steps of 5 %."""

HALF, LAST = 0.5, 0.15
"""Parts of the run that are left: more than the first is time for cuts, less than the last for a fast decay only."""


@AUTOMATIONS.register("IntelligentLearningRateScheduler")
class IntelligentLearningRateScheduler:
    """Multiplies the scheduled rate by f: f <- 0.8 f on a plateau, 0.5 f on divergence, 1.25 f while all goes well.

    Watched is the unweighted sum of the pixel, structure and frequency losses, in blocks of `plateau_patience` / 10
    iterations. Its relative gain per `plateau_patience` iterations is known with a confidence interval. Flat: the upper
    bound is below `improvement_threshold`. Diverging: the loss rises in two windows that do not overlap, beyond twice
    the interval. Steady improvement: the lower bound is above `adaptation_threshold` in two such windows, gradient
    norms are steady; f rises above 1 only before the schedule has begun to decay. The window begins again where the
    training becomes another one (a jump of the loss, a new f, phase or batch size, a rate or a weight that has moved by
    more than 20 %), and nothing is done within `plateau_patience` iterations of that.

    The metric can hold back: no plateau while it gains more than `improvement_threshold` of its size per
    `plateau_patience`, no rise while it worsens. It needs 8 validations in 16 times `plateau_patience` iterations to
    have a say. With `monitor_loss: false`, or without such a loss, it is watched itself, over 8 to 32 validations.

    Without a schedule, `adaptive` chooses at the first plateau: cuts of 0.8 if more than half of the run is left, a
    cosine to `min_lr_factor` over the rest if less, an exponential in the last 15 %. The other strategies fix that
    choice. A decay is followed in steps of 5 %.

    Shapes: none. Range: f within [min_lr_factor, max_lr_factor].
    Reference: ours. Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", JASA 1968, has the interval.

    ```yaml
    training_automations:
      IntelligentLearningRateScheduler:
        plateau_patience: 1000
        strategy: adaptive
    ```

    Raises:
        ConfigError: bounds of the factor that do not hold 1, or a fallback schedule that does not exist.
    """

    name = "IntelligentLearningRateScheduler"
    asked = "interval"
    max_adjustments = 50

    def __init__(
        self,
        *,
        monitor_loss: Annotated[bool, Field(description="whether the training loss is watched")] = True,
        monitor_validation: Annotated[bool, Field(description="whether a metric is watched")] = True,
        monitor_metric: Annotated[
            str | None, Field(description="metric, such as val/psnr; the first if absent")
        ] = None,
        adaptation_threshold: Annotated[
            float, Field(gt=0, lt=1, description="relative gain per plateau_patience above which the rate may rise")
        ] = 0.02,
        plateau_patience: Annotated[
            int | None,
            Field(ge=BLOCKS, description="iterations that a gain refers to; 1000, above 0.5 M parameters 2000"),
        ] = None,
        improvement_threshold: Annotated[
            float, Field(gt=0, lt=1, description="relative gain per plateau_patience below which it is a plateau")
        ] = 0.001,
        min_lr_factor: Annotated[float, Field(gt=0, le=1, description="lowest factor")] = 0.1,
        max_lr_factor: Annotated[float, Field(ge=1, description="highest factor")] = 2.0,
        strategy: Annotated[Strategy, Field(description="what follows a plateau without a schedule")] = "adaptive",
        fallback_scheduler_type: Annotated[
            str | None, Field(description="schedule when the automation has failed and the option file has none")
        ] = None,
        fallback_scheduler_params: Annotated[
            dict[str, Any] | None, Field(description="parameters of that schedule")
        ] = None,
    ) -> None:
        self._monitor, self._metric_name = (monitor_loss, monitor_validation), monitor_metric
        self._patience, self._thresholds = plateau_patience, (improvement_threshold, adaptation_threshold)
        self._bounds, self._strategy = (min_lr_factor, max_lr_factor), strategy
        self._fallback = fallback_schedule(fallback_scheduler_type, fallback_scheduler_params or {})
        self._now = RateState(mode="" if strategy == "adaptive" else strategy)
        self._window, self._noise = Window(), Noise()
        self._begin(RunFacts(total_iter=1))

    def start(self, run: RunFacts) -> list[str]:
        """Size the windows for the network and choose what is watched.

        Raises:
            ConfigError: the metric is not computed, or the fallback's schedule does not fit the run.
        """
        if self._monitor[1] and self._metric_name is not None and self._metric_name not in run.better:
            close = nearest(self._metric_name, run.better)
            message = f"{self._metric_name} is not computed; accepted: {', '.join(run.better) or 'none is'}{close}"
            raise ConfigError(Problem(key="monitor_metric", message=message))
        check_fallback(self._fallback, run.total_iter)
        self._begin(run)
        if not self._by_loss and self._metric is None:
            return ["neither a training loss nor a metric is watched: the factor stays at 1"]
        watched = [*(sorted(run.trend_losses) if self._by_loss else []), *([self._metric.name] if self._metric else [])]
        limits = f"the factor stays within {self._bounds[0]:g} and {self._bounds[1]:g}"
        plateau = f"a plateau is a gain below {100 * self._thresholds[0]:g} % per {self.patience:,} iterations"
        lines = [f"watches {', '.join(watched)}; {plateau}; {limits}"]
        span = WINDOWS[-1] // BLOCKS * self.patience
        if self._by_loss and self._metric is not None and MetricTrend.LENGTHS[0] * run.val_freq > span:
            rare = f"{MetricTrend.LENGTHS[0]} validations take more than {span:,} iterations"
            lines.append(f"{rare}: the training loss alone decides")
        return lines

    def _begin(self, run: RunFacts) -> None:
        self._run = run
        self.patience = self._patience or PATIENCE * (2 if run.parameters > LARGE else 1)
        if run.has_schedule and self._strategy == "adaptive":
            self._now.mode = "plateau"
        self._trend = Trend(
            block=self.patience // BLOCKS, horizon=self.patience, threshold=self._thresholds[0], windows=WINDOWS
        )
        self._metric: MetricTrend | None = None
        name = self._metric_name or next(iter(run.better), None)
        if self._monitor[1] and name is not None and run.val_freq > 0:
            self._metric = MetricTrend(
                name,
                higher=run.better.get(name) == "higher",
                horizon=self.patience,
                threshold=self._thresholds[0],
                span=WINDOWS[-1] // BLOCKS * self.patience if self._by_loss else 0,
            )

    @property
    def _by_loss(self) -> bool:
        return self._monitor[0] and bool(self._run.trend_losses)

    def observe_phase(self, iteration: int, what: Phase) -> None:
        """What came before is another training."""
        self._restart(iteration)

    def _restart(self, iteration: int) -> None:
        self._now.changed, self._now.statement, self._window = iteration, "", Window()
        self._now.norms = [0.0, 0.0]
        self._trend.restart()
        if self._metric is not None:
            self._metric.restart()

    def observe_step(self, step: StepFacts) -> None:
        """Take the loss of an iteration."""
        rate = step.scheduled_rate
        self._now.decayed = self._now.decayed or (self._run.has_schedule and rate < self._now.peak * (1 - 1e-9))
        self._now.peak = max(self._now.peak, rate)
        if self._window.moved(step):
            self._restart(step.iteration)
            self._window.moved(step)
        labels = self._run.trend_losses & step.losses.keys()
        if not (step.applied and labels and self._by_loss):
            return
        norm = step.norms.get("net_g", 0.0)
        if math.isfinite(norm) and norm > 0:
            self._now.norms = [self._now.norms[0] + math.log(norm), self._now.norms[1] + 1]
        loss = sum(step.losses[label] for label in sorted(labels))
        if not self._now.told:
            self._noise.add(loss)
        verdict = self._trend.add(loss)
        if verdict is not None:
            self._end_block(step, verdict)

    def _end_block(self, step: StepFacts, verdict: Verdict) -> None:
        if self._trend.blocks == 1:  # the loss has jumped, or all begins
            self._window, self._now.statement = Window(), ""
            self._window.moved(step)
        if self._now.norms[1]:
            self._window.norms = [*self._window.norms, self._now.norms[0] / self._now.norms[1]][-WINDOWS[-1] :]
        self._now.norms = [0.0, 0.0]
        self._state(verdict, self._trend, self._window.steady(self._trend.length))

    def observe_validation(self, validation: ValidationFacts) -> None:
        """Take the metric."""
        value = validation.metrics.get(self._metric.name, math.nan) if self._metric is not None else math.nan
        if self._metric is None or not math.isfinite(value):
            return
        self._metric.add(validation.iteration, value)
        if not self._by_loss:
            self._state(self._metric.verdict(validation.iteration), self._metric, steady=True)

    def _state(self, verdict: Verdict, source: Trend | MetricTrend, steady: bool) -> None:
        """What this verdict says together with those before it."""
        window = self._window
        window.seen += 1
        self._now.statement = ""
        if verdict == "undecided":
            return
        self._now.gain = low, estimate, high = source.gain
        if verdict != "worsening":
            window.worse = None
        elif 2 * high < estimate:  # beyond twice the interval: such windows are many, and 5 % of them are wrong
            window.worse = window.seen if window.worse is None else window.worse
        if estimate < self._thresholds[1]:
            window.better = None
        elif low > self._thresholds[1]:
            window.better = window.seen if window.better is None else window.better
        if window.worse is not None and window.seen - window.worse >= source.length:
            self._now.statement = "divergence"
        elif verdict == "flat":
            self._now.statement = "plateau detection"
        elif (
            window.better is not None
            and low > self._thresholds[1]
            and window.seen - window.better >= source.length
            and steady
        ):
            self._now.statement = "steady improvement"

    def decide(self, iteration: int) -> list[Decision]:
        """A new factor, if one is due; a decay goes on whenever it has gone on by 5 %."""
        decisions = self._tell_noise()
        acts = self._now.statement and iteration - self._now.changed >= self.patience and not self._held_back(iteration)
        if acts and self._now.statement == "plateau detection" and not self._now.decay:
            decisions += self._plateau(iteration)
        elif acts and self._now.statement != "plateau detection":
            decisions += self._multiply(iteration)
        return decisions + self._follow(iteration)

    def _held_back(self, iteration: int) -> bool:
        if self._metric is None or not self._by_loss or self._now.statement == "divergence":
            return False
        against: Verdict = "improving" if self._now.statement == "plateau detection" else "worsening"
        return self._metric.verdict(iteration) == against

    def _plateau(self, iteration: int) -> list[Decision]:
        if self._now.mode == "plateau":
            return self._multiply(iteration)
        left = max(self._run.total_iter - iteration, 0) / self._run.total_iter
        self._now.mode = self._now.mode or ("plateau" if left > HALF else "cosine" if left > LAST else "exponential")
        kind = (
            f"{self._now.mode} to {self._bounds[0]:g} over the rest"
            if self._now.mode != "plateau"
            else "cuts of 0.80 (plateau)"
        )
        why = "no schedule is set and the loss is flat" if self._strategy == "adaptive" else "the loss is flat"
        text = f"{why} with {left:.0%} of the run left: {kind}"
        reason = f"strategy {self._now.mode}"
        note = Note(reason=reason, about=reason, text=text, evidence={"left": left}, counts=False)
        if self._now.mode == "plateau":
            return [note, *self._multiply(iteration)]
        self._now.decay = [iteration, self._now.factor]
        self._restart(iteration)
        return [note]

    def _multiply(self, iteration: int) -> list[Decision]:
        """Multiply the factor as the statement demands, within its bounds."""
        reason = self._now.statement
        before = self._now.factor
        highest = min(self._bounds[1], max(1.0, before)) if self._now.decayed or self._now.decay else self._bounds[1]
        if self._now.decay and reason == "steady improvement":
            return []
        factor = min(max(before * MULTIPLIERS[reason], self._bounds[0]), highest)
        if math.isclose(factor, before, rel_tol=1e-9):
            return []
        if self._now.decay:
            self._now.decay[1] = max(self._now.decay[1] * factor / before, self._bounds[0])
        evidence = {"gain_low": self._now.gain[0], "gain": self._now.gain[1], "gain_high": self._now.gain[2]}
        self._now.factor = factor
        self._restart(iteration)
        return [_set(before, factor, reason, {**evidence, "patience": self.patience})]

    def _follow(self, iteration: int) -> list[Decision]:
        """Go on with a decay."""
        if not self._now.decay or self._now.factor <= self._bounds[0]:
            return []
        first, start = self._now.decay
        part = min((iteration - first) / max(self._run.total_iter - first, 1), 1.0)
        if self._now.mode == "cosine":
            wanted = self._bounds[0] + (start - self._bounds[0]) * (1 + math.cos(math.pi * part)) / 2
        else:
            wanted = start * (self._bounds[0] / start) ** part
        before = self._now.factor
        if wanted >= before or (math.log(before / wanted) < STEP and part < 1):
            return []
        self._now.factor = wanted
        return [_set(before, wanted, f"{self._now.mode} decay", {"part": part}, counts=False)]

    def _tell_noise(self) -> list[Decision]:
        if self._now.told or self._noise.count < 2000:
            return []
        self._now.told = True
        block, longest = self.patience // BLOCKS, WINDOWS[-1]
        blocks = self._noise.blocks(block=block, horizon=self.patience, threshold=self._thresholds[0])
        wait = max(math.ceil(blocks), WINDOWS[0]) * block
        text = (
            f"the loss varies by {self._noise.sigma:.0%} from one iteration to the next: with that noise a plateau is "
            f"known after about {_rounded(wait):,} iterations (a gain below {100 * self._thresholds[0]:g} % per "
            f"{self.patience:,})"
        )
        if blocks > longest:
            text += f", more than the {longest * block:,} that are looked at: a larger plateau_patience or"
            text += " improvement_threshold helps"
        evidence = {"noise": self._noise.sigma, "wait": wait}
        return [Note(reason="noise", about="noise", text=text, evidence=evidence, counts=False)]

    def holding(self) -> list[Decision]:
        """The factor."""
        return [SetLearningRateFactor(reason="resume", text="", factor=self._now.factor, counts=False)]

    def fallback(self) -> list[Decision]:
        """Factor 1 and the configured schedule; without one, the fallback's."""
        decisions: list[Decision] = [
            SetLearningRateFactor(reason="fallback", text="LR multiplier back at 1", factor=1.0, counts=False)
        ]
        if not self._run.has_schedule:
            scheduler = self._fallback or {"type": "CosineAnnealingLR", "eta_min_factor": 0.01}
            text = f"{scheduler['type']} from here"
            decisions.append(SetSchedule(reason="fallback", text=text, scheduler=scheduler, counts=False))
        return decisions

    def state_dict(self) -> dict[str, Any]:
        """The factor and why, what has been seen since the training last became another one."""
        return {
            "now": self._now.state_dict(),
            "window": self._window.state_dict(),
            "noise": self._noise.state_dict(),
            "trend": self._trend.state_dict(),
            "metric": None if self._metric is None else self._metric.state_dict(),
            "watched": self._watched,
        }

    @property
    def _watched(self) -> list[int | str]:
        """What blocks and points are of: with other options those of a checkpoint say nothing."""
        return [self._trend.block, "" if self._metric is None else self._metric.name]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; the factor stays within the bounds of the present options."""
        configured = self._now.mode
        self._now.load_state_dict(state_dict["now"])
        self._now.factor = min(max(self._now.factor, self._bounds[0]), self._bounds[1])
        self._now.mode = configured or self._now.mode
        self._now.decay = self._now.decay if self._now.mode != "plateau" else []
        self._noise.load_state_dict(state_dict["noise"])
        if state_dict["watched"] != self._watched:
            self._restart(self._now.changed)
            return
        self._window.load_state_dict(state_dict["window"])
        self._trend.load_state_dict(state_dict["trend"])
        if self._metric is not None and state_dict["metric"] is not None:
            self._metric.load_state_dict(state_dict["metric"])


def _set(
    before: float, factor: float, reason: str, evidence: dict[str, float | int | str], *, counts: bool = True
) -> Decision:
    text = f"Suggested LR multiplier {factor / before:.2f} for reason: {reason}"
    evidence = {**evidence, "from": before, "to": factor}
    return SetLearningRateFactor(reason=reason, text=text, evidence=evidence, factor=factor, counts=counts)


def _rounded(number: int) -> int:
    """Two digits."""
    return int(float(f"{number:.1e}"))
