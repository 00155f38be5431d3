"""Moves weight from one loss to another when a validated value says that it is time. Knows no trainer.

scheduler = FlexibleLossScheduler(SchedulerParams(source_loss="l1", target_loss="spectrum"))
for iteration in ...:
    weights = scheduler.get_loss_weights()          # {"l1": 1.0, "spectrum": 0.0} at first
    ...
    if iteration % 1000 == 0:
        scheduler.step({"spectrum": 0.12}, iteration)
"""

from __future__ import annotations

import inspect
import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from traiNNer.types import Better
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.logging import get_logger
from traiNNer.utils.registry import METRICS
from traiNNer.utils.scheduler_params import SchedulerParams

__all__ = ["Adaptation", "FlexibleLossScheduler", "SchedulerParams"]

REMEMBERED = 50
"""Values by which `patience: auto` knows the noise."""

KNOWN_FROM = 10
"""With fewer of them, it does not know it yet."""

SAFETY = 3.0
"""Standard deviations by which a curve that improves must be able to lie above its best for `patience: auto`."""


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """A step of the move."""

    progress: float
    """Of the whole move, in [0, 1], after the step."""
    weight_source: float
    weight_target: float
    reason: str
    value: float | None
    """The watched value, smoothed; None where none is watched."""

    def __str__(self) -> str:
        weights = f"source {self.weight_source:.3f}, target {self.weight_target:.3f}"
        return f"{self.reason}: progress {self.progress:.2f}, {weights}"


class FlexibleLossScheduler:
    """Multipliers of a source's and a target's weight, which move as observations say.

    With `plateau`, an adaptation follows `patience` observations without an improvement by more than `min_delta` on
    the best one; the best is then what was seen last, for another objective has another best. With `increase` it
    follows an observation that is worse than the last. With `iteration` progress is a function of the iteration alone.
    A value that is not finite is no improvement, and nothing else.

    Args:
        params: options.
        better: where the watched value improves. Default: lower for losses, else what the registered metric of that
            name says.

    Raises:
        ValueError: it is not known where the watched value improves.
    """

    def __init__(self, params: SchedulerParams, better: Better | None = None) -> None:
        if better not in (None, "lower", "higher"):
            raise ValueError(f"better: found {better!r}; accepted: lower, higher")
        self.params = params
        self.better: Better = better or _direction(params.monitor_metric)
        self.progress = 0.0
        self._observations = self._adaptations = 0
        self._consecutive = self._pause = 0
        self._points = params.points
        self._forget()
        self.at(0)

    def _forget(self) -> None:
        self._smoothed: float | None = None
        self._best: float | None = None
        self._bad = self._used = self._best_at = 0
        self._recent: list[float] = []

    @property
    def enabled(self) -> bool:
        """Whether it moves anything."""
        return self.params.enabled

    @property
    def weight_source(self) -> float:
        """The source's multiplier now."""
        return self.params.multipliers(self.progress)[0] if self.enabled else 1.0

    @property
    def weight_target(self) -> float:
        """The target's multiplier now."""
        return self.params.multipliers(self.progress)[1] if self.enabled else 1.0

    @property
    def monitored(self) -> float | None:
        """The watched value, smoothed; None before the first one that counts."""
        return self._smoothed

    @property
    def watched_losses(self) -> tuple[str, ...]:
        """Labels of the losses whose values it watches."""
        if self.params.adaptation_trigger == "iteration":
            return ()
        return self.params.losses_of(self.params.monitor_metric)

    def get_loss_weights(self) -> dict[str, float]:
        """Label, or label/component, to the multiplier of its own weight."""
        source, target = self.weight_source, self.weight_target
        return {
            **dict.fromkeys(self.params.sources, source),
            **dict.fromkeys(self.params.targets, target),
            **dict.fromkeys(self.params.left_alone, 1.0),
            **self.params.static_components,
        }

    def at(self, iteration: int) -> Adaptation | None:
        """Progress by the iteration, of trigger `iteration`; the adaptation where a point of `schedule` is reached."""
        if not self.enabled or self.params.adaptation_trigger != "iteration":
            return None
        place = bisect_right(self._points, iteration, key=lambda point: point[0])
        (start, first), *rest = self._points[place - 1 : place + 1]
        self.progress = first
        if rest:
            end, last = rest[0]
            self.progress += (last - first) * (iteration - start) / (end - start)
        return self._adaptation(f"iteration {iteration:,}") if iteration == start > 0 else None

    def step(self, metrics: Mapping[str, float], iteration: int | None = None) -> Adaptation | None:
        """Take the figures of a validation; what followed from them, if anything did.

        Args:
            metrics: the unweighted losses by label, and metrics by name; also `val_loss` or `val/loss`.
            iteration: iterations done, which options that count them need.

        Raises:
            KeyError: the watched value is not among them.
            ValueError: the iteration is needed.
        """
        if not self.enabled:
            return None
        params = self.params
        if iteration is None and (
            params.adaptation_trigger == "iteration" or params.min_iterations_before_adapt or params.warmup_iterations
        ):
            raise ValueError("the options of this loss scheduler count iterations: step needs the iteration")
        if params.adaptation_trigger == "iteration":
            return self._pass(iteration or 0)
        at = math.inf if iteration is None else iteration
        value = self._watched(metrics)
        self._observations += 1
        if self._observations <= params.warmup_observations or at <= params.warmup_iterations:
            return None
        reason = self._observe(value)
        if self._pause > 0:
            self._pause -= 1
            return None
        early = self._observations <= params.min_observations_before_adapt
        if not reason or early or at <= params.min_iterations_before_adapt or self.progress >= 1:
            return None
        if self._consecutive >= params.max_consecutive_adaptations:
            self._rest()
            return None
        return self._adapt(reason)

    def _pass(self, iteration: int) -> Adaptation | None:
        """The last point of `schedule` that lies between this observation and the one before."""
        self.at(iteration)
        passed = sum(0 < at <= iteration for at, _ in self._points)
        before, self._adaptations = self._adaptations, passed
        return self._adaptation(f"iteration {iteration:,}") if passed > before else None

    def _watched(self, metrics: Mapping[str, float]) -> float:
        """The value to watch among a validation's figures; a loss of several labels is their sum.

        A loss is found by its labels and a metric by its full name first: one may be called as another.
        """
        name = self.params.monitor_metric
        labels = self.params.losses_of(name)
        short = "loss" if name == "val_loss" else name.removeprefix("val/")
        for names in (labels, (f"val/{short}",), (name,), (short,)):
            if names and all(each in metrics for each in names):
                return sum(float(metrics[each]) for each in names)
        names = labels or (name,)
        missing = [each for each in names if each not in metrics]
        if missing:
            raise KeyError(f"{', '.join(missing)} is not among the figures of this validation: {', '.join(metrics)}")
        return sum(metrics[each] for each in names)

    def _observe(self, value: float) -> str:
        """Take a value; why the weights should move, empty if they should not."""
        params = self.params
        if not math.isfinite(value):
            self._bad += 1
            return self._plateau("the last is not finite, ") if params.adaptation_trigger == "plateau" else ""
        before = self._smoothed
        self._recent = [*self._recent, value][-REMEMBERED:]
        self._used += 1
        beta = params.ema_beta if params.use_ema else 0.0
        self._smoothed = value if before is None else beta * before + (1 - beta) * value
        if self._best is None or self._improves(self._smoothed, self._best):
            self._best, self._best_at = self._smoothed, self._used
            self._bad = self._consecutive = 0
            return ""
        self._bad += 1
        if params.adaptation_trigger == "plateau":
            return self._plateau()
        if before is None or not self._is_worse(self._smoothed, before):
            return ""
        return f"{params.monitor_metric} is worse ({self._smoothed:.4g} after {before:.4g})"

    def _improves(self, value: float, best: float) -> bool:
        """Whether a value is better than another by more than `min_delta`."""
        margin = self.params.min_delta * (abs(best) if self.params.threshold_mode == "rel" else 1)
        return value < best - margin if self.better == "lower" else value > best + margin

    def _is_worse(self, value: float, before: float) -> bool:
        """Whether a value is worse than another by more than `min_delta`."""
        margin = self.params.min_delta * (abs(before) if self.params.threshold_mode == "rel" else 1)
        return value > before + margin if self.better == "lower" else value < before - margin

    def _plateau(self, remark: str = "") -> str:
        patience = self._patience()
        if patience is None or self._bad < patience:
            return ""
        shown = "" if self._smoothed is None else f"{self._smoothed:.4g} "
        return f"plateau in {self.params.monitor_metric} ({remark}{shown}for {self._bad} observations)"

    def _patience(self) -> int | None:
        """Observations without improvement that are a plateau; None while the noise is not known.

        For `auto`: a curve that improves by d = `min_delta` per observation, and whose best lies a lucky `SAFETY` s
        below it, is better than that best again after 1 + SAFETY s / d observations. s is the standard deviation of
        the smoothed value when it was the best: that of the values themselves at first, and sqrt((1 - beta) /
        (1 + beta)) of it in the end. At first the average also lags, by beta / (1 - beta) observations in the end.
        """
        params, count = self.params, len(self._recent)
        if params.patience != "auto":
            return params.patience
        if count < KNOWN_FROM:
            return None
        differences = [abs(after - before) for before, after in pairwise(self._recent)]
        noise = statistics.median(differences) / 0.6745 / math.sqrt(2) * (1 + 2 / math.sqrt(count))
        lag = 0.0
        if params.use_ema:
            beta = params.ema_beta
            lag = beta / (1 - beta) * beta ** (self._best_at - 1)
            settled = (1 - beta) / (1 + beta)
            noise *= math.sqrt(settled + (1 - settled) * beta ** (2 * (self._best_at - 1)))
        level = abs(statistics.median(self._recent)) if params.threshold_mode == "rel" else 1.0
        drift = params.min_delta * level
        return 2 if drift == 0 else 2 + math.ceil(lag + SAFETY * noise / drift)

    def _adapt(self, reason: str) -> Adaptation:
        self.progress = self.params.step(self.progress)
        self._adaptations += 1
        self._consecutive += 1
        self._bad, self._best, self._best_at = 0, self._smoothed, self._used
        return self._adaptation(reason)

    def _adaptation(self, reason: str) -> Adaptation:
        return Adaptation(
            progress=self.progress,
            weight_source=self.weight_source,
            weight_target=self.weight_target,
            reason=reason,
            value=self._smoothed,
        )

    def _rest(self) -> None:
        """The adaptations do not help: let some observations pass."""
        self._pause = self._patience() or KNOWN_FROM
        count, self._consecutive, self._bad = self._consecutive, 0, 0
        names = f"{', '.join(self.params.sources)} to {', '.join(self.params.targets)}"
        text = "loss scheduler (%s): %d adaptations without improvement; paused for %d observations"
        get_logger().info(text, names, count, self._pause)

    def state_dict(self) -> dict[str, Any]:
        """What the observations said; the options are not in it, so that the file's hold after a resume."""
        return {
            "losses": [*self.params.sources, "->", *self.params.targets],
            "monitor": self.params.monitor_metric,
            "observations": self._observations,
            "adaptations": self._adaptations,
            "progress": self.progress,
            "smoothed": self._smoothed,
            "best": self._best,
            "bad": self._bad,
            "used": self._used,
            "best_at": self._best_at,
            "recent": list(self._recent),
            "consecutive": self._consecutive,
            "pause": self._pause,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; if another value was watched, only progress and counts, for its best says nothing.

        Raises:
            ValueError: it is that of other losses.
        """
        losses = self.state_dict()["losses"]
        if list(state_dict["losses"]) != losses:
            raise ValueError(f"it moves {' '.join(state_dict['losses'])}, not {' '.join(losses)}")
        self._observations, self._adaptations = state_dict["observations"], state_dict["adaptations"]
        self.progress = state_dict["progress"]
        if state_dict["monitor"] != self.params.monitor_metric:
            self._consecutive = self._pause = 0
            self._forget()
            return
        self._smoothed, self._best, self._bad = state_dict["smoothed"], state_dict["best"], state_dict["bad"]
        self._used, self._best_at = state_dict["used"], state_dict["best_at"]
        self._recent = list(state_dict["recent"])
        self._consecutive, self._pause = state_dict["consecutive"], state_dict["pause"]


def _direction(monitor: str) -> Better:
    """Where a watched value improves, by its name."""
    name = monitor.rpartition("/")[2]
    if name.endswith("loss"):
        return "lower"
    try:
        better = inspect.signature(METRICS.get(name)).parameters["better"].default
    except (ConfigError, KeyError):
        better = None
    if better not in ("lower", "higher"):
        raise ValueError(f"{monitor}: it is not known whether lower or higher is better; give `better`")
    return better
