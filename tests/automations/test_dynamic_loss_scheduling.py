"""DynamicLossScheduling on simulated gradient norms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from traiNNer.training_automations import dynamiclossscheduling_automation as module
from traiNNer.training_automations.base import Decision, LossFacts, Note, RunFacts, SetLossWeight, StepFacts
from traiNNer.training_automations.dynamiclossscheduling_automation import DynamicLossScheduling
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import AUTOMATIONS

LOSSES = {
    "l1": LossFacts(kind="pixel"),
    "ssim": LossFacts(kind="structure"),
    "features": LossFacts(kind="perceptual"),
    "gan": LossFacts(kind="adversarial"),
}
WEIGHTS = {"l1": 1.0, "ssim": 0.2, "features": 0.5, "gan": 0.1}
NORMS = {"l1": 0.02, "ssim": 0.05, "features": 0.01, "gan": 0.08}
SHARES = {"ssim": 0.5, "features": 0.25, "gan": 0.1}


def with_shares(**shares: float) -> dict[str, LossFacts]:
    return {label: LossFacts(kind=facts.kind, share=shares.get(label)) for label, facts in LOSSES.items()}


class Simulation:
    """A run whose norms are given: told and asked every 10 iterations, samples where they were asked for."""

    def __init__(
        self,
        norms: Callable[[int], Mapping[str, float]] = lambda iteration: NORMS,
        weights: Callable[[int], Mapping[str, float]] = lambda iteration: WEIGHTS,
        losses: Mapping[str, LossFacts] = LOSSES,
        noise: float = 0.0,
        measures: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        self.norms, self.weights, self.noise = norms, weights, noise
        self.automation = DynamicLossScheduling(**options)
        self.lines = self.automation.start(RunFacts(total_iter=10_000, losses=losses, measures=measures or {}))
        self.factors: dict[str, float] = {}
        self.decisions: list[tuple[int, Decision]] = []
        self.sampled: list[int] = []
        self.done, self.wanted = 0, self._ask(0)

    def _ask(self, iteration: int) -> set[int]:
        ahead = range(iteration + 1, iteration + 11)
        return {each for each in ahead if self.automation.samples_gradients(each)}

    def step(self, iteration: int) -> StepFacts:
        rng = np.random.default_rng(iteration)
        weights = self.weights(iteration)
        norms = {
            label: norm * math.exp(self.noise * rng.standard_normal())
            for label, norm in self.norms(iteration).items()
            if weights[label]
        }
        if iteration in self.wanted:
            self.sampled.append(iteration)
        return StepFacts(
            iteration=iteration,
            # a factor that is multiplied and divided again leaves its rounding
            scheduled_weights={label: weight * (1 + 2e-16 * (iteration % 2)) for label, weight in weights.items()},
            weights={label: weight * self.factors.get(label, 1.0) for label, weight in weights.items()},
            gradients=norms if iteration in self.wanted else {},
        )

    def run(self, last: int) -> Simulation:
        """On to an iteration, a multiple of 10."""
        for first in range(self.done, last, 10):
            for iteration in range(first + 1, first + 11):
                self.automation.observe_step(self.step(iteration))
            self.done = first + 10
            for decision in self.automation.decide(self.done):
                self.decisions.append((self.done, decision))
                if isinstance(decision, SetLossWeight):
                    self.factors[decision.label] = decision.factor
            self.wanted = self._ask(self.done)
        return self

    def share(self, label: str) -> float:
        """As the norms are without noise."""
        norms, weights = self.norms(self.done), self.weights(self.done)
        pull = {name: norms[name] * weights[name] * self.factors.get(name, 1.0) for name in (label, "l1")}
        return pull[label] / pull["l1"]

    def changes(self, label: str) -> list[tuple[int, float]]:
        found = [(at, each) for at, each in self.decisions if isinstance(each, SetLossWeight)]
        return [(at, each.factor) for at, each in found if each.label == label]


@pytest.mark.parametrize("scaled", NORMS)
@pytest.mark.parametrize("scale", [1e-3, 0.1, 10.0, 1e3])
def test_a_given_share_is_reached_whatever_a_loss_is_multiplied_by(scaled: str, scale: float) -> None:
    def fading(iteration: int, by: float = 1.0) -> dict[str, float]:
        norms = {label: norm * (1 + iteration / 300) ** (-0.3 * at) for at, (label, norm) in enumerate(NORMS.items())}
        return norms | {scaled: norms[scaled] * by}

    options = {"losses": with_shares(**SHARES), "max_factor": 2000.0, "noise": 0.15}
    unscaled = Simulation(fading, **options).run(520)
    found = Simulation(lambda iteration: fading(iteration, scale), **options).run(520)
    for label in SHARES:
        assert found.share(label) == pytest.approx(unscaled.share(label), rel=0.1)
    for label in SHARES if scaled == "l1" else [scaled]:
        times = [at for at, _ in found.changes(label)]
        assert times[0] == 20  # at once, and all the way
        assert min(np.diff(times), default=50) >= 50


def test_a_weight_that_was_chosen_is_respected() -> None:
    simulation = Simulation(noise=0.1).run(3000)
    for label in SHARES:
        assert simulation.share(label) == pytest.approx(NORMS[label] * WEIGHTS[label] / 0.02, rel=0.1)
        assert len(simulation.changes(label)) <= 12  # of 60 that might be
    assert simulation.factors.get("l1") is None


def test_a_loss_whose_scale_changes_returns() -> None:
    def norms(iteration: int) -> dict[str, float]:
        return NORMS | {"features": NORMS["features"] * (3.0 if iteration > 1000 else 1.0)}

    simulation = Simulation(norms, noise=0.05).run(1000)
    before = simulation.share("features")
    simulation.run(2500)
    assert simulation.share("features") == pytest.approx(before, rel=0.1)
    changes = [(at, factor) for at, factor in simulation.changes("features") if at > 1000]
    factors = [1.0, *(factor for _, factor in changes)]
    steps = [math.log(after / was) for was, after in pairwise(factors)]
    assert max(map(abs, steps[1:])) <= math.log(1.1) + 1e-9
    times = [at for at, _ in changes]
    assert min(np.diff(times)) >= 50


def test_factors_stay_within_their_limit() -> None:
    simulation = Simulation(lambda iteration: NORMS | {"gan": 0.08 if iteration < 100 else 80.0}).run(5000)
    assert simulation.factors["gan"] == pytest.approx(0.25)
    high = Simulation(losses=with_shares(gan=50.0)).run(1000)
    assert high.factors["gan"] == pytest.approx(4.0)


@pytest.mark.parametrize("value", [math.inf, math.nan, 0.0])
@pytest.mark.parametrize("bad", ["features", "l1"])
def test_a_sample_that_is_not_finite_changes_no_weight(bad: str, value: float) -> None:
    def norms(iteration: int) -> dict[str, float]:
        return NORMS | ({bad: value} if iteration in (7, 500) else {})

    options = {"losses": with_shares(**SHARES)}
    assert Simulation(norms, **options).run(2000).factors == pytest.approx(Simulation(**options).run(2000).factors)
    assert Simulation(norms).run(2000).decisions == []


def test_nothing_is_decided_from_a_step_that_was_not_applied() -> None:
    automation = Simulation().automation
    automation.observe_step(StepFacts(iteration=1, scheduled_weights=WEIGHTS, gradients=NORMS, applied=False))
    assert automation.state_dict()["losses"]["ssim"]["count"] == 0


def test_what_is_in_a_ramp_is_left_alone() -> None:
    def weights(iteration: int) -> dict[str, float]:
        ramp = min(max((iteration - 800) / 400, 0.0), 1.0)
        return WEIGHTS | {"features": 0.5 + 0.5 * ramp}

    def norms(iteration: int) -> dict[str, float]:
        return NORMS | {"features": NORMS["features"] * (2.0 if iteration > 600 else 1.0)}

    simulation = Simulation(norms, weights).run(3000)
    times = [at for at, _ in simulation.changes("features")]
    assert [at for at in times if 800 < at <= 1200] == []
    assert [at for at in times if at <= 800]
    assert [at for at in times if at > 1200]
    # the target has moved with the weight
    assert simulation.share("features") == pytest.approx(NORMS["features"] * 1.0 / 0.02, rel=0.1)


def test_no_share_is_followed_while_the_anchor_moves() -> None:
    def weights(iteration: int) -> dict[str, float]:
        return WEIGHTS | {"l1": 1.0 - 0.5 * min(max((iteration - 600) / 400, 0.0), 1.0)}

    simulation = Simulation(weights=weights, losses=with_shares(**SHARES)).run(2000)
    times = [at for label in SHARES for at, _ in simulation.changes(label)]
    assert [at for at in times if 600 < at <= 1000] == []
    assert simulation.share("ssim") == pytest.approx(0.5, rel=0.1)


def test_a_loss_that_switches_on_is_sampled_at_once() -> None:
    def weights(iteration: int) -> dict[str, float]:
        return WEIGHTS | {"gan": 0.1 if iteration > 1000 else 0.0}

    simulation = Simulation(weights=weights, losses=with_shares(gan=0.1)).run(990)
    assert simulation.sampled[:20] == list(range(1, 21))
    assert simulation.sampled[-3:] == [850, 900, 950]
    assert simulation.changes("gan") == []
    simulation.run(1100)
    assert [each for each in simulation.sampled if 1010 < each <= 1030] == list(range(1011, 1031))
    assert simulation.changes("gan")[0][0] <= 1040
    assert simulation.share("gan") == pytest.approx(0.1, rel=0.05)


def test_anchor_fixed_and_absent_losses_are_left_alone() -> None:
    losses = with_shares(ssim=5.0) | {"gan": LossFacts(kind="adversarial", share=9.0, fixed=True)}
    simulation = Simulation(weights=lambda _: WEIGHTS | {"features": 0.0}, losses=losses).run(2000)
    assert simulation.factors.keys() == {"ssim"}
    assert simulation.lines == [
        "keeps shares of the gradient, relative to l1's; targets: ssim 5; by their weights at the start: features; "
        "fixed weights: gan"
    ]


def test_few_iterations_are_sampled_where_no_share_is_given() -> None:
    assert len(Simulation().run(1000).sampled) <= 20 + 20 + 1000 // 50
    assert len(Simulation(losses=with_shares(ssim=0.25)).run(1000).sampled) > 200  # it is to be there soon


def test_lines_and_evidence() -> None:
    simulation = Simulation(losses=with_shares(ssim=0.25)).run(20)
    [(at, decision)] = simulation.decisions
    assert at == 20
    assert decision.text == "loss weight of ssim adjusted from 0.2 to 0.1 due to gradient share 0.5 (target 0.25)"
    assert decision.evidence == {"share": pytest.approx(0.5), "target": 0.25, "norm": 0.05}
    assert decision.counts


def test_the_mode_calibrate_ends() -> None:
    simulation = Simulation(mode="calibrate").run(400)
    notes = [decision for _, decision in simulation.decisions]
    assert [type(note) for note in notes] == [Note] * 3
    assert notes[0].text == "loss weight of ssim stays at 0.2: 5 adjustments in a row under 2 %"
    assert simulation.wanted == set()
    restless = Simulation(
        lambda iteration: NORMS | {"gan": 0.08 * 1.3 ** (iteration // 50)}, mode="calibrate", max_factor=1e9
    )
    restless.run(2000)
    last = max(at for at, _ in restless.changes("gan"))
    assert 900 <= last <= 1010
    assert "1,000 iterations are over" in [each.text for _, each in restless.decisions if "gan" in each.text][-1]


def calibration(measures: Mapping[str, float], losses: Mapping[str, LossFacts]) -> dict[str, float]:
    return {label: 1.0 if facts.fixed or facts.share else measures["texture"] for label, facts in losses.items()}


def test_the_calibration_is_applied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "calibrate", calibration)
    losses = {**with_shares(ssim=0.5), "gan": LossFacts(kind="adversarial", fixed=True)}
    simulation = Simulation(losses=losses, measures={"texture": 1.5}, max_factor=2.0)
    assert simulation.wanted == set()  # the first samples are those of calibrated weights
    simulation.run(30)
    first = [decision for at, decision in simulation.decisions if at == 10]
    assert {decision.label: decision.factor for decision in first} == {"l1": 1.5, "features": 1.5}
    assert first[1].text == "loss weight of features adjusted from 0.5 to 0.75 due to calibration (perceptual)"
    assert first[1].evidence == {"multiplier": 1.5, "texture": 1.5}
    for first_iteration in (1, 31):
        resumed = DynamicLossScheduling()
        resumed.start(
            RunFacts(total_iter=99, first_iteration=first_iteration, losses=losses, measures={"texture": 1.9})
        )
        if first_iteration == 31:  # an automation that the saved run did not have
            assert resumed.decide(40) == []
        resumed.load_state_dict(json.loads(json.dumps(simulation.automation.state_dict())))
        assert resumed.decide(40) == []
        assert resumed.state_dict()["losses"]["features"]["calibration"] == 1.5
    assert simulation.run(1500).share("features") == pytest.approx(0.5 * 0.01 / 0.02, rel=0.1)


def test_without_measures_or_without_auto_calibrate_nothing_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "calibrate", calibration)
    assert Simulation().run(10).decisions == []
    assert Simulation(measures={"texture": 1.5}, auto_calibrate=False).run(10).decisions == []
    off = Simulation(measures={"texture": 1.5}, mode="off").run(2000)
    assert {at for at, _ in off.decisions} == {10}
    assert off.sampled == []


def test_the_adaptation_s_limit_is_beside_the_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "calibrate", calibration)
    rising = Simulation(
        lambda iteration: NORMS | {"gan": 0.08 if iteration < 100 else 1e-4}, measures={"texture": 1.5}
    ).run(4000)
    assert rising.factors["gan"] == pytest.approx(1.5 * 4.0)
    assert {each.label: each.factor for each in rising.automation.fallback()} == {"gan": 1.5}
    assert rising.automation.fallback() == []


def test_resumed_decides_as_straight() -> None:
    def norms(iteration: int) -> dict[str, float]:
        return NORMS | {"gan": 0.08 * (1 + iteration / 500)}

    straight = Simulation(norms, losses=with_shares(ssim=0.5), noise=0.2).run(1500)
    assert len(straight.decisions) > 10
    for at in (10, 20, 400, 770):
        first = Simulation(norms, losses=with_shares(ssim=0.5), noise=0.2).run(at)
        second = Simulation(norms, losses=with_shares(ssim=0.5), noise=0.2)
        second.automation.load_state_dict(json.loads(json.dumps(first.automation.state_dict())))
        second.factors, second.done, second.wanted = dict(first.factors), at, second._ask(at)
        second.run(1500)
        assert first.decisions + second.decisions == straight.decisions
        assert second.automation.state_dict() == straight.automation.state_dict()


def test_losses_may_come_and_go_on_a_resume() -> None:
    first = Simulation(losses=with_shares(**SHARES)).run(600)
    losses = {"l1": LOSSES["l1"], "ssim": LOSSES["ssim"], "color": LossFacts(kind="color", share=0.3)}
    automation = DynamicLossScheduling()
    automation.start(RunFacts(total_iter=100, losses=losses))
    automation.load_state_dict(first.automation.state_dict())
    state = automation.state_dict()["losses"]
    assert state.keys() == losses.keys()
    assert state["ssim"] == first.automation.state_dict()["losses"]["ssim"]
    assert state["color"]["count"] == 0


def edited(first: Simulation, losses: Mapping[str, LossFacts], **options: Any) -> Simulation:
    """Go on with other options."""
    second = Simulation(losses=losses, **options)
    second.automation.load_state_dict(json.loads(json.dumps(first.automation.state_dict())))
    second.factors = {each.label: each.factor for each in second.automation.holding()}
    second.done, second.wanted = first.done, second._ask(first.done)
    return second


def test_a_loss_that_is_fixed_on_a_resume_has_its_own_weight() -> None:
    first = Simulation(losses=with_shares(ssim=0.25)).run(100)
    assert first.factors == {"ssim": pytest.approx(0.5)}
    losses = with_shares() | {"ssim": LossFacts(kind="structure", fixed=True)}
    assert edited(first, losses).factors == {}


def test_with_another_anchor_on_a_resume_shares_are_measured_again() -> None:
    """What the weights gave relative to the old anchor says nothing: nothing has changed but the yardstick."""
    first = Simulation(losses=with_shares()).run(200)
    second = edited(first, with_shares(), anchor="ssim").run(1500)
    assert second.sampled[0] == 201
    assert second.decisions == []


@pytest.mark.parametrize(
    ("shares", "options", "line"),
    [
        ({"l1": 2.0}, {}, "; share has no effect for l1"),
        ({"ssim": 0.5}, {}, "fixed weights: gan"),
        ({"ssim": 0.5}, {"mode": "off"}, "mode off: weights follow the training images alone; share has no effect for"),
        ({}, {"mode": "off", "auto_calibrate": False}, "mode off: weights stay as they are"),
    ],
)
def test_a_share_without_effect_is_told(shares: dict[str, float], options: dict[str, Any], line: str) -> None:
    losses = with_shares(**shares) | {"gan": LossFacts(kind="adversarial", fixed=True)}
    (told,) = Simulation(losses=losses, **options).lines
    assert line in told
    assert ("no effect" in told) is ("no effect" in line)


def test_the_state_does_not_grow() -> None:
    simulation = Simulation(noise=0.2).run(500)
    size = len(json.dumps(simulation.automation.state_dict()))
    assert len(json.dumps(simulation.run(4000).automation.state_dict())) < size + 100


@pytest.mark.parametrize(
    ("labels", "anchor", "expected"),
    [
        (["gan", "ssim", "l1"], None, "l1"),
        (["gan", "ssim", "features"], None, "ssim"),
        (["l1", "ssim"], "ssim", "ssim"),
        (["l1", "ssim"], "mse", "found 'mse'; accepted: a label of train.losses: l1, ssim"),
        (["gan"], None, "there is no loss but adversarial ones; accepted: the label of one of them: gan"),
    ],
)
def test_the_anchor(labels: list[str], anchor: str | None, expected: str) -> None:
    automation = DynamicLossScheduling(anchor=anchor)
    run = RunFacts(total_iter=10, losses={label: LOSSES[label] for label in labels})
    if "accepted" not in expected:
        assert automation.start(run)[0].startswith(f"keeps shares of the gradient, relative to {expected}'s; ")
        return
    with pytest.raises(ConfigError) as caught:
        automation.start(run)
    assert [(problem.key, problem.message) for problem in caught.value.problems] == [("anchor", expected)]


@pytest.mark.parametrize("name", ["DynamicLossScheduling", "dynamic_loss_scheduling"])
def test_found_by_both_spellings(name: str) -> None:
    assert AUTOMATIONS.get(name) is DynamicLossScheduling
