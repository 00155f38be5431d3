"""Learning rates: closed forms against torch's schedulers, and warm-up as an exact factor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.utils.errors import ConfigError

LENGTH = 5000
CASES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (
        {"type": "MultiStepLR", "milestones": [400, 1000, 1000, 4999], "gamma": 0.5},
        "MultiStepLR",
        {"milestones": [400, 1000, 1000, 4999], "gamma": 0.5},
    ),
    ({"type": "multi_step_lr", "milestones": [1]}, "MultiStepLR", {"milestones": [1]}),
    ({"type": "CosineAnnealingLR"}, "CosineAnnealingLR", {"T_max": LENGTH, "eta_min": 1e-4}),
    ({"type": "CosineAnnealingLR", "eta_min": 1e-7}, "CosineAnnealingLR", {"T_max": LENGTH, "eta_min": 1e-7}),
    (
        {"type": "CosineAnnealingLR", "T_max": 1300, "eta_min_factor": 0.0},
        "CosineAnnealingLR",
        {"T_max": 1300, "eta_min": 0.0},
    ),
]


@pytest.mark.parametrize(("options", "name", "parameters"), CASES)
def test_equals_torch_at_every_iteration(options: dict[str, Any], name: str, parameters: dict[str, Any]) -> None:
    net = torch.nn.Linear(1, 1)
    reference = torch.optim.SGD(net.parameters(), lr=1e-3)
    scheduler = getattr(torch.optim.lr_scheduler, name)(reference, **parameters)
    optimizer = build_optimizer({"type": "SGD", "lr": 1e-3}, net)
    rate = LearningRate(optimizer, build_schedule(options, LENGTH))
    for iteration in range(1, LENGTH + 1):
        rate.apply(iteration)
        # torch's chained cosine accumulates rounding of about 1e-12 of the base rate
        assert rate.current == pytest.approx(reference.param_groups[0]["lr"], rel=1e-9, abs=1e-14)
        reference.step()
        scheduler.step()


def test_warmup_is_a_factor_and_exactly_one_at_its_end() -> None:
    net = torch.nn.Linear(1, 1)
    optimizer = build_optimizer({"type": "AdamW", "lr": 3e-4}, net)
    options = {"type": "CosineAnnealingLR", "eta_min_factor": 0.3}
    warm, plain = (LearningRate(optimizer, build_schedule(options, 100), warmup_iter) for warmup_iter in (7, -1))
    for iteration in range(1, 101):
        expected = plain.value(iteration, 3e-4)
        if iteration < 7:
            assert warm.value(iteration, 3e-4) == pytest.approx(expected * iteration / 7, rel=1e-12)
        else:
            assert warm.value(iteration, 3e-4) == expected


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"type": "MultiStepLR", "milestones": [5, 2]}, "milestones in ascending order"),
        ({"type": "MultiStepLR", "milestones": [5], "gamma": 1.5}, "at most 1"),
        ({"type": "CosineAnnealingLR", "eta_min": 0.0, "eta_min_factor": 0.1}, "beside eta_min_factor"),
        ({"type": "CosineAnealingLR"}, "did you mean CosineAnnealingLR?"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found.replace("?", r"\?")):
        build_schedule(options, 10)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"type": "AdamW", "lr": 0}, "lr: found 0; accepted: greater than 0"),
        ({"type": "AdamW", "lr": 1e-4, "betas": [0.9, 1.0]}, "betas.1.: found 1.0; accepted: less than 1"),
        ({"type": "AdamW", "lr": 1e-4, "wieght_decay": 0.1}, "did you mean weight_decay"),
        ({"type": "AdamV", "lr": 1e-4}, "unknown optimizer 'AdamV'"),
    ],
)
def test_bad_optimizers_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        build_optimizer(options, torch.nn.Linear(1, 1))
