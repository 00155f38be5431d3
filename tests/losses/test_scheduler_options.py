"""Every option of a loss scheduler makes a difference to its decisions, and none is left out here."""

from __future__ import annotations

import math
from typing import Any

import pytest

from traiNNer.losses.flexible_loss_scheduler import FlexibleLossScheduler, SchedulerParams

QUICK = {
    "source_loss": "a",
    "target_loss": "b",
    "patience": 2,
    "min_observations_before_adapt": 3,
    "warmup_observations": 2,
    "ema_beta": 0.5,
}

OPTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "enabled": (False, {}),
    "source_loss": ("c", {}),
    "target_loss": ("c", {}),
    "source_components": ({"a/x": True}, {}),
    "target_components": ({"b/x": True, "b": False}, {}),
    "static_components": ({"c": 0.5}, {}),
    "initial_weight_source": (2.0, {}),
    "initial_weight_target": (0.2, {}),
    "final_weight_source": (0.5, {}),
    "final_weight_target": (0.5, {}),
    "max_weight_target": (0.1, {}),
    "adaptation_trigger": ("increase", {}),
    "patience": (4, {}),
    "min_delta": (0.1, {}),
    "threshold_mode": ("abs", {}),
    "transition_step": (0.3, {}),
    "adaptive_step": (False, {}),
    "min_observations_before_adapt": (15, {}),
    "warmup_observations": (14, {}),
    "min_iterations_before_adapt": (1500, {}),
    "warmup_iterations": (1400, {}),
    "max_consecutive_adaptations": (1, {}),
    "monitor_metric": ("source_loss", {}),
    "use_ema": (False, {}),
    "ema_beta": (0.8, {}),
    "transition_schedule": ("cosine", {}),
    "schedule": ([[500, 0.5]], {"adaptation_trigger": "iteration", "schedule": [[500, 0.6]]}),
}
"""Option to another value than its default, and what it needs beside it."""


def test_no_option_is_forgotten() -> None:
    assert OPTIONS.keys() == SchedulerParams.model_fields.keys()


def decisions(options: dict[str, Any]) -> list[dict[str, float]]:
    """Multipliers after each of 40 observations: both losses fall, settle, and swing."""
    scheduler = FlexibleLossScheduler(SchedulerParams.model_validate(QUICK | options))
    each: list[dict[str, float]] = []
    for number in range(1, 41):
        swing = 0.1 * math.sin(number * 2.1) if number > 25 else 0.0
        value = 5 * (1 + math.exp(-number)) + swing
        scheduler.step({"a": 2 * value - 3 * swing + number / 50, "b": value, "c": 6 - value}, 100 * number)
        each.append(scheduler.get_loss_weights())
    return each


@pytest.mark.parametrize("name", OPTIONS)
def test_the_option_makes_a_difference(name: str) -> None:
    value, others = OPTIONS[name]
    assert decisions(others | {name: value}) != decisions(others)
