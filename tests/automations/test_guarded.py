"""What an automation says when it has made all the adjustments that it may."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest

from traiNNer.training_automations.adaptivegradientclipping_automation import AdaptiveGradientClipping
from traiNNer.training_automations.base import Automation, RunFacts, StepFacts
from traiNNer.training_automations.guard import Guarded
from traiNNer.training_automations.intelligentlearningratescheduler_automation import IntelligentLearningRateScheduler

RUN = RunFacts(total_iter=6000, trend_losses=frozenset({"l1"}))


def reasons(automation: Automation, step: Callable[[int], StepFacts], limit: int = 0) -> Iterator[str]:
    """Of what a guarded automation decides in 3,000 iterations."""
    guarded = Guarded(automation, limit)
    guarded.start(RUN)
    for iteration in range(1, 3001):
        automation.observe_step(step(iteration))
        if iteration % 10 == 0:
            yield from (decision.reason for decision in guarded.decide(iteration))


@pytest.mark.parametrize("limit", [0, 1])
def test_an_explosion_is_told_once_while_the_threshold_has_to_stay(limit: int) -> None:
    """The median, which the line names, is another one each time."""
    chance = random.Random(0)

    def step(iteration: int) -> StepFacts:
        spikes = {("net_g", 1000): 30, ("net_d", 1000): 40, ("net_g", 2000): 50}
        usual = {net: 0.5 * math.exp(chance.gauss(0, 0.25)) for net in ("net_g", "net_d")}
        return StepFacts(
            iteration=iteration, norms={net: norm * spikes.get((net, iteration), 1) for net, norm in usual.items()}
        )

    told = list(reasons(AdaptiveGradientClipping(initial_threshold=10.0), step, limit))

    assert [reason for reason in told if reason == "exploding gradients"] == ["exploding gradients"] * 3


def test_noise_and_strategy_are_told_once_by_one_that_only_watches() -> None:
    chance = random.Random(0)

    def step(iteration: int) -> StepFacts:
        losses = {"l1": math.exp(chance.gauss(0, 0.01))}
        return StepFacts(iteration=iteration, losses=losses, weights={"l1": 1.0}, scheduled_rate=1e-3)

    told = list(reasons(IntelligentLearningRateScheduler(plateau_patience=100), step))

    assert sorted(told) == ["noise", "strategy plateau"]
