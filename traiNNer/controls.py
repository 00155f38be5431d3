"""What automations may change in a run: the only place where their decisions touch model and loader."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from traiNNer.data import TrainLoader
from traiNNer.models.sr_model import SRModel
from traiNNer.schedulers import build_schedule
from traiNNer.training_automations.base import (
    Change,
    Decision,
    SetBatchSize,
    SetClipThreshold,
    SetLearningRateFactor,
    SetLossWeight,
    SetSchedule,
    StopTraining,
)


class RunControls:
    """Applies decisions, see `Controls`.

    Args:
        model: what is trained.
        loader: where its data comes from.
        total_iter: length of the run, for schedules.
    """

    def __init__(self, model: SRModel, loader: TrainLoader, total_iter: int) -> None:
        self._model, self._loader, self._total_iter = model, loader, total_iter
        self._ways: dict[type[Decision], Callable[[Any], list[Change]]] = {
            SetLearningRateFactor: self._set_rate_factor,
            SetSchedule: self._set_schedule,
            SetClipThreshold: self._set_clip_threshold,
            SetLossWeight: self._set_loss_weight,
            SetBatchSize: self._set_batch_size,
            StopTraining: lambda decision: [Change(what="stop", before=0, after=1)],
        }

    def apply(self, decision: Decision) -> list[Change]:
        """Carry a decision out, from the next iteration on; a note changes nothing.

        Raises:
            ValueError: it would make numbers that are not finite.
        """
        numbers = [getattr(decision, name, 1.0) for name in ("factor", "threshold", "rate_factor")]
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError(f"found {decision}; accepted: finite numbers above 0")
        way = self._ways.get(type(decision))
        return [] if way is None else way(decision)

    def _set_rate_factor(self, decision: SetLearningRateFactor) -> list[Change]:
        return self._multiply_rates("learning_rate_factor", decision.factor)

    def _multiply_rates(self, name: str, factor: float) -> list[Change]:
        before = 1.0
        for player in self._model.players.values():
            before = player.learning_rate.factors.get(name, 1.0)
            player.learning_rate.factors[name] = factor
        return [Change(what=name, before=before, after=factor)]

    def _set_schedule(self, decision: SetSchedule) -> list[Change]:
        for player in self._model.players.values():
            player.learning_rate.schedule = build_schedule(decision.scheduler, self._total_iter)
        return [Change(what="schedule", before="the option file's", after=None)]

    def _set_clip_threshold(self, decision: SetClipThreshold) -> list[Change]:
        player = self._model.players.get(decision.network)
        if player is None:  # of a network that the run no longer has
            return []
        before, player.max_norm = player.max_norm, decision.threshold
        return [Change(what=f"clip_threshold/{decision.network}", before=before, after=decision.threshold)]

    def _set_loss_weight(self, decision: SetLossWeight) -> list[Change]:
        before = self._model.loss_factor(decision.label)
        if before is None:  # a loss that has ended
            return []
        self._model.set_loss_factor(decision.label, decision.factor)
        return [Change(what=f"loss_factor/{decision.label}", before=before, after=decision.factor)]

    def _set_batch_size(self, decision: SetBatchSize) -> list[Change]:
        before = max(self._loader.micro_batches)
        self._loader.set_micro_batches(decision.micro_batches)
        changes = [Change(what="batch_size", before=before, after=decision.batch_size)]
        if decision.rate_factor != 1 or not math.isclose(self._rate_factor, 1):
            changes += self._multiply_rates("batch_size_rate_factor", decision.rate_factor)
        return changes

    @property
    def _rate_factor(self) -> float:
        return self._model.players["net_g"].learning_rate.factors.get("batch_size_rate_factor", 1.0)
