"""DynamicLossScheduling on a real network: shares that do not depend on a loss's scale, and what a step sees of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from shares_run import Run
from torch import nn

from traiNNer.losses.base import Loss
from traiNNer.training_automations.base import SetLossWeight

LOSSES: list[dict[str, Any]] = [
    {"type": "l1loss", "loss_weight": 1.0, "name": "l1"},
    {"type": "fftloss", "loss_weight": 0.01, "name": "fft", "share": 0.2},
    {"type": "mseloss", "loss_weight": 0.4, "name": "mse", "share": 0.1},
]


def scaled(label: str, scale: float) -> list[dict[str, Any]]:
    return [{**loss, "loss_weight": loss["loss_weight"] * (scale if loss["name"] == label else 1)} for loss in LOSSES]


def trained(label: str = "l1", scale: float = 1.0) -> Run:
    run = Run(scaled(label, scale), max_factor=2000.0)
    run.train(1, 520)  # 500 from the first normalization on
    return run


@pytest.mark.slow
def test_shares_end_where_those_of_the_unscaled_run_do() -> None:
    unscaled = trained()
    for label, scale in (("l1", 1e-3), ("l1", 1e3), ("fft", 1e-3), ("fft", 1e3), ("mse", 1e-3), ("mse", 1e3)):
        found = trained(label, scale)
        for name in ("fft", "mse") if label == "l1" else (label,):
            assert found.share(name, 520) == pytest.approx(unscaled.share(name, 520), rel=0.1)


def weights(run: Run) -> dict[str, Any]:
    return copy.deepcopy(run.model.net_g.state_dict())


def equal(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_resumed_run_equals_a_straight_one() -> None:
    options = {"adjustment_frequency": 10}
    straight = Run(LOSSES, **options)
    straight.train(1, 30)
    first = weights(straight), copy.deepcopy(straight.model.players["net_g"].optimizer.state_dict())
    state = json.loads(json.dumps(straight.automation.state_dict()))
    straight.train(31, 60)
    resumed = Run(LOSSES, **options)
    resumed.model.net_g.load_state_dict(first[0])
    resumed.model.players["net_g"].optimizer.load_state_dict(first[1])
    resumed.automation.load_state_dict(state)
    for at, decision in straight.decisions:  # a manager keeps what is in force
        if at <= 30 and isinstance(decision, SetLossWeight):
            resumed.model.set_loss_factor(decision.label, decision.factor)
    resumed.ask(30)
    resumed.train(31, 60)
    assert [each for each in straight.decisions if each[0] > 30] == resumed.decisions != []
    assert equal(weights(straight), weights(resumed))


def test_sampling_alone_changes_nothing() -> None:
    found = []
    for mode in ("continuous", "off"):
        run = Run([{**loss, "share": None} for loss in LOSSES], mode=mode)
        run.train(1, 30)
        assert not run.decisions
        found.append(weights(run))
    assert equal(*found)


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    class Hooked(Loss):
        """A loss whose gradient is broken in the sample, not in the step: the first of its backward passes."""

        def __init__(self, loss: nn.Module) -> None:
            super().__init__()
            self.loss, self.broken = loss, False

        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            if self.broken:
                passes: list[int] = []
                output = output.clone()
                output.register_hook(
                    lambda gradient: passes.append(1) or (gradient * torch.inf if len(passes) == 1 else gradient)
                )
            return self.loss(output, target)

    found = []
    for broken in (False, True):
        run = Run(LOSSES, adjustment_frequency=10)
        run.train(1, 50)
        hooked = Hooked(run.model._terms[1].loss)
        run.model._terms[1].loss = hooked  # type: ignore[assignment]
        hooked.broken = broken
        before, facts = len(run.decisions), run.automation.state_dict()
        run.train(51, 60)
        after = run.automation.state_dict()
        found.append(after["losses"]["fft"]["count"] - facts["losses"]["fft"]["count"])
        changed = [decision.label for _, decision in run.decisions[before:] if isinstance(decision, SetLossWeight)]
        assert run.model.record["finite"].item() == 1
    assert found[0] > found[1] == 0
    assert "fft" not in changed
