"""Learning rates: base rates that are accepted, and warm-up as an exact factor; schedules are in `schedulers/`."""

from __future__ import annotations

import pytest
import torch

from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.utils.errors import ConfigError


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
        ({"type": "AdamW", "lr": 0}, "lr: found 0; accepted: greater than 0"),
        ({"type": "AdamW", "lr": 1e-4, "betas": [0.9, 1.0]}, "betas.1.: found 1.0; accepted: less than 1"),
        ({"type": "AdamW", "lr": 1e-4, "wieght_decay": 0.1}, "did you mean weight_decay"),
        ({"type": "AdamV", "lr": 1e-4}, "unknown optimizer 'AdamV'"),
    ],
)
def test_bad_optimizers_are_refused(options: dict[str, object], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        build_optimizer(options, torch.nn.Linear(1, 1))
