"""What holds for every scheduler: mistakes are refused by key, warm-up is a factor, nothing is remembered."""

from __future__ import annotations

import inspect
import math
import random
import re
from typing import Any

import pytest
import torch
import yaml

from traiNNer.config.scheduler_checks import scheduler_notices, scheduler_problems
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import SCHEDULERS

Options = dict[str, Any]
NAMES = SCHEDULERS.names()
REQUIRED = {
    "MultiStepLR": {"milestones": [20, 60]},
    "MultiStepRestartLR": {"milestones": [20, 60]},
    "CosineAnnealingWarmRestarts": {"T_0": 30},
    "CosineAnnealingRestartLR": {"periods": [30, 70]},
}


def example(name: str) -> Options:
    found = re.search(r"```yaml\n(.*?)```", inspect.getdoc(SCHEDULERS.get(name)) or "", flags=re.DOTALL)
    assert found
    return yaml.safe_load(found[1])["scheduler"]


def smallest(name: str) -> Options:
    return {"type": name, **REQUIRED.get(name, {})}


def rate_of(options: Options, total_iter: int, warmup_iter: int = 0) -> LearningRate:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    return LearningRate(optimizer, build_schedule(options, total_iter), warmup_iter)


@pytest.mark.parametrize("name", NAMES)
class TestScheduler:
    @pytest.mark.parametrize("total_iter", [1, 2, 9, 100])
    def test_rates_are_finite_and_not_negative_also_past_the_end(self, name: str, total_iter: int) -> None:
        schedule = build_schedule(smallest(name), total_iter)
        rates = [schedule(iteration, 1e-3) for iteration in range(1, 3 * total_iter + 200)]
        assert all(0 <= rate <= 1 and math.isfinite(rate) for rate in rates)
        assert rates[0] > 0

    def test_the_example_of_its_description_is_a_schedule(self, name: str) -> None:
        schedule = build_schedule(example(name), 100000)
        assert len({round(schedule(iteration, 1e-3), 12) for iteration in range(1, 150000, 500)}) >= (
            1 if name == "ReduceLROnPlateau" else 2
        )

    def test_depends_on_the_iteration_alone(self, name: str) -> None:
        schedule = build_schedule(smallest(name), 100)
        order = list(range(1, 151))
        straight = {iteration: schedule(iteration, 1e-3) for iteration in order}
        random.Random(0).shuffle(order)
        assert {iteration: schedule(iteration, 1e-3) for iteration in order} == straight

    @pytest.mark.parametrize("warmup_iter", [1, 7, 100, 150])
    def test_warm_up_is_a_factor_and_exactly_one_at_its_end(self, name: str, warmup_iter: int) -> None:
        warm, plain = rate_of(smallest(name), 100, warmup_iter), rate_of(smallest(name), 100)
        for iteration in range(1, 160):
            expected = plain.value(iteration, 3e-4)
            if iteration < warmup_iter:
                assert warm.value(iteration, 3e-4) == pytest.approx(expected * iteration / warmup_iter, rel=1e-12)
            else:
                assert warm.value(iteration, 3e-4) == expected

    def test_an_unknown_parameter_is_refused(self, name: str) -> None:
        [problem] = scheduler_problems({**smallest(name), "gama_ray": 1}, 100)
        assert problem.key == "gama_ray"
        assert problem.message.startswith("unknown key; accepted: ")

    def test_its_example_holds_no_mistake(self, name: str) -> None:
        assert scheduler_problems(example(name), 200000) == []


MISTAKES: list[tuple[str, Options, str, str]] = [
    ("MultiStepLR", {"milestones": [5, 2]}, "milestones", "found [5, 2]; accepted: milestones in ascending order"),
    ("MultiStepLR", {"milestones": [5.5]}, "milestones[0]", "found 5.5; accepted: a whole number of iterations"),
    ("MultiStepLR", {"milestones": [True]}, "milestones[0]", "found true; accepted: a whole number of iterations"),
    ("MultiStepLR", {"milestones": [0]}, "milestones[0]", "found 0; accepted: at least 1"),
    ("MultiStepLR", {"milestones": 5}, "milestones", "found 5; accepted: a list"),
    ("MultiStepLR", {"milestones": [5], "gamma": 1.5}, "gamma", "found 1.5; accepted: at most 1"),
    ("MultiStepLR", {}, "milestones", "required key is missing"),
    ("MultiStepRestartLR", {"milestones": [5], "gamma": 0}, "gamma", "found 0; accepted: greater than 0"),
    ("MultiStepRestartLR", {"milestones": [5], "restarts": [0, 9, 9]}, "restarts", "found [0, 9, 9]; accepted: differ"),
    ("MultiStepRestartLR", {"milestones": [5], "restarts": [-1]}, "restarts[0]", "found -1; accepted: at least 0"),
    (
        "MultiStepRestartLR",
        {"milestones": [5], "restarts": [0, 9], "restart_weights": [1.0]},
        "restart_weights",
        "found 1 for 2 restarts; accepted: as many as restarts",
    ),
    ("ExponentialLR", {"gamma": 1.01}, "gamma", "found 1.01; accepted: at most 1"),
    ("ExponentialLR", {"gamma": 0.0}, "gamma", "found 0.0; accepted: greater than 0"),
    ("StepLR", {"gamma": -0.1}, "gamma", "found -0.1; accepted: greater than 0"),
    ("StepLR", {"step_size": 0}, "step_size", "found 0; accepted: at least 1"),
    ("StepLR", {"step_size": 2.5}, "step_size", "found 2.5; accepted: a whole number of iterations"),
    ("LinearLR", {"end_factor": 1.1}, "end_factor", "found 1.1; accepted: at most 1"),
    ("LinearLR", {"start_factor": -0.1}, "start_factor", "found -0.1; accepted: at least 0"),
    ("LinearLR", {"total_iters": 0}, "total_iters", "found 0; accepted: at least 1"),
    ("ConstantLR", {"factor": 2}, "factor", "found 2; accepted: at most 1"),
    ("CosineAnnealingLR", {"T_max": 0}, "T_max", "found 0; accepted: at least 1"),
    ("CosineAnnealingLR", {"eta_min": 0.0, "eta_min_factor": 0.1}, "eta_min", "found beside eta_min_factor"),
    ("CosineAnnealingWarmRestarts", {"T_0": 9, "T_mult": 0}, "T_mult", "found 0; accepted: at least 1"),
    ("CosineAnnealingWarmRestarts", {}, "T_0", "required key is missing"),
    ("CosineAnnealingRestartLR", {"periods": []}, "periods", "found []; accepted: at least 1 value(s)"),
    (
        "CosineAnnealingRestartLR",
        {"periods": [5, 5], "restart_weights": [1.0, 1.0, 1.0]},
        "restart_weights",
        "found 3 for 2 periods; accepted: as many as periods",
    ),
    ("PolynomialLR", {"power": 0}, "power", "found 0; accepted: greater than 0"),
    ("OneCycleLR", {"pct_start": 1.5}, "pct_start", "found 1.5; accepted: at most 1"),
    ("OneCycleLR", {"anneal_strategy": "cosine"}, "anneal_strategy", "found 'cosine'; accepted: 'cos' or 'linear'"),
    ("OneCycleLR", {"max_momentum": 1.0}, "max_momentum", "found 1.0; accepted: less than 1"),
    ("OneCycleLR", {"max_lr": 0}, "max_lr", "found 0; accepted: greater than 0"),
    ("OneCycleLR", {"cycle_momentum": 1}, "cycle_momentum", "found 1; accepted: true or false"),
    ("WarmupStableDecayLR", {"cooldown_type": "sqrt"}, "cooldown_type", "found 'sqrt'; accepted: 'cosine', '1-sqrt'"),
    ("WarmupStableDecayLR", {"num_decay_steps": 0}, "num_decay_steps", "found 0; accepted: at least 1"),
    ("ReduceLROnPlateau", {"factor": 1.0}, "factor", "found 1.0; accepted: less than 1"),
    ("ReduceLROnPlateau", {"factor": 0.0}, "factor", "found 0.0; accepted: greater than 0"),
    ("ReduceLROnPlateau", {"patience": -1}, "patience", "found -1; accepted: at least 0"),
    ("ReduceLROnPlateau", {"mode": "lower"}, "mode", "found 'lower'; accepted: 'min' or 'max'"),
    ("ReduceLROnPlateau", {"threshold": 1.5}, "threshold", "found 1.5 of the best value; accepted: less than 1"),
    ("CosineAnealingLR", {}, "type", "unknown scheduler 'CosineAnealingLR'"),
]


@pytest.mark.parametrize(("name", "parameters", "key", "message"), MISTAKES)
def test_a_mistake_is_one_message_with_its_key(name: str, parameters: Options, key: str, message: str) -> None:
    [problem] = scheduler_problems({"type": name, **parameters}, 100)
    assert problem.key == key
    assert problem.message.startswith(message)
    with pytest.raises(ConfigError):
        build_schedule({"type": name, **parameters}, 100)


def test_iterations_are_written_as_elsewhere() -> None:
    schedule = build_schedule({"type": "multi_step_lr", "milestones": ["1k", 2e3], "gamma": 0.5}, 5000)
    assert [schedule(i, 1e-3) for i in (1000, 1001, 2000, 2001)] == [1, 0.5, 0.5, 0.25]
    assert build_schedule({"type": "StepLR", "step_size": "1k"}, 5000)(1001, 1e-3) == pytest.approx(0.1)


SURPRISES: list[tuple[str, Options, str, str]] = [
    ("CosineAnnealingLR", {"T_max": 600}, "T_max", "the rate rises again from iteration 602"),
    ("MultiStepLR", {"milestones": [500, 1000]}, "milestones[1]", "1,000 has no effect"),
    ("MultiStepRestartLR", {"milestones": [5], "restarts": [0, 2000]}, "restarts[1]", "2,000 has no effect"),
    ("ExponentialLR", {}, "gamma", "less than a thousandth of the rate from iteration 136 on"),
    ("StepLR", {"step_size": 1001}, "step_size", "the rate is never reduced"),
    ("LinearLR", {"total_iters": 5000}, "total_iters", "does not reach end_factor"),
    ("PolynomialLR", {"total_iters": 5000}, "total_iters", "does not reach 0"),
    ("CosineAnnealingWarmRestarts", {"T_0": 5000}, "T_0", "there is no restart"),
    ("OneCycleLR", {"total_steps": 5000}, "total_steps", "does not come down"),
    ("OneCycleLR", {"total_steps": 500}, "total_steps", "stays at its lowest value"),
    ("CosineAnnealingRestartLR", {"periods": [300, 400]}, "periods", "they end at 700"),
    ("get_wsd_schedule", {"num_stable_steps": 950}, "num_decay_steps", "the phases end at 1,050"),
]


@pytest.mark.parametrize(("name", "parameters", "key", "message"), SURPRISES)
def test_what_may_not_be_meant_is_told(name: str, parameters: Options, key: str, message: str) -> None:
    [notice] = scheduler_notices({"type": name, **parameters}, 1000)
    assert notice.key == key
    assert message in notice.message


def test_the_iterations_in_notices_are_true() -> None:
    cosine = build_schedule({"type": "CosineAnnealingLR", "T_max": 600}, 1000)
    assert cosine(601, 1.0) < cosine(600, 1.0)
    assert cosine(601, 1.0) < cosine(602, 1.0)
    exponential = build_schedule({"type": "ExponentialLR"}, 1000)
    assert exponential(136, 1.0) < 1e-3 <= exponential(135, 1.0)
    milestone = build_schedule({"type": "MultiStepLR", "milestones": [999, 1000]}, 1000)
    assert milestone(1000, 1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"ExponentialLR"}))
def test_nothing_is_told_about_defaults_and_about_mistakes(name: str) -> None:
    assert scheduler_notices(smallest(name), 100) == []
    assert scheduler_notices({**smallest(name), "gama_ray": 1}, 100) == []


def test_a_cosine_as_long_as_the_run_or_one_iteration_less_does_not_rise() -> None:
    assert scheduler_notices({"type": "CosineAnnealingLR", "T_max": 999}, 1000) == []
    assert scheduler_notices({"type": "CosineAnnealingLR", "T_max": 998}, 1000) != []
