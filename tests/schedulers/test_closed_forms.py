"""Schedules as closed forms: torch's own rates, stepped once per iteration, at every iteration of 5,000."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from traiNNer.schedulers import CyclesMomentum, build_schedule

LENGTH = 5000
BASE = 1e-3
Options = dict[str, Any]

REFERENCE: list[tuple[Options, Options]] = [
    # The examples of the scheduler reference, each with what torch calls the same thing in a run of 5,000 iterations.
    ({"type": "CosineAnnealingLR", "eta_min_factor": 0.1}, {"T_max": LENGTH, "eta_min": 0.1 * BASE}),
    ({"type": "CosineAnnealingLR", "eta_min_factor": 0.001}, {"T_max": LENGTH, "eta_min": 0.001 * BASE}),
    ({"type": "CosineAnnealingLR", "eta_min_factor": 0.5}, {"T_max": LENGTH, "eta_min": 0.5 * BASE}),
    ({"type": "CosineAnnealingLR", "T_max": 100, "eta_min_factor": 0.1}, {"T_max": 100, "eta_min": 0.1 * BASE}),
    ({"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.1, "total_iters": 1000}, {}),
    ({"type": "LinearLR", "start_factor": 0.1, "end_factor": 1.0, "total_iters": 5000}, {}),
    ({"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.0, "total_iters": 50000}, {}),
    ({"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.25}, {"total_iters": LENGTH}),
    ({"type": "ExponentialLR", "gamma": 0.9999}, {}),
    ({"type": "ExponentialLR", "gamma": 0.999}, {}),
    ({"type": "ExponentialLR", "gamma": 0.95}, {}),
    ({"type": "ConstantLR", "factor": 1.0}, {"total_iters": LENGTH}),
    ({"type": "ConstantLR", "factor": 0.1, "total_iters": 10000}, {}),
    ({"type": "ConstantLR", "factor": 0.01, "total_iters": 1000}, {}),
    ({"type": "StepLR", "step_size": 10000, "gamma": 0.5}, {}),
    ({"type": "StepLR", "step_size": 5000, "gamma": 0.1}, {}),
    ({"type": "StepLR", "step_size": 20000, "gamma": 0.8}, {}),
]
DEFAULTS: list[tuple[Options, Options]] = [
    ({"type": "CosineAnnealingLR"}, {"T_max": LENGTH, "eta_min": 0.1 * BASE}),
    ({"type": "LinearLR"}, {"start_factor": 1.0, "end_factor": 0.1, "total_iters": LENGTH}),
    ({"type": "ExponentialLR"}, {"gamma": 0.95}),
    ({"type": "ConstantLR"}, {"factor": 1.0, "total_iters": LENGTH}),
    ({"type": "StepLR"}, {"step_size": LENGTH // 10, "gamma": 0.1}),
    ({"type": "PolynomialLR"}, {"total_iters": LENGTH}),
    ({"type": "OneCycleLR"}, {"max_lr": BASE, "total_steps": LENGTH, "cycle_momentum": False}),
]
GRID: list[tuple[Options, Options]] = [
    ({"type": "MultiStepLR", "milestones": [400, 1000, 1000, 4999], "gamma": 0.5}, {}),
    ({"type": "MultiStepLR", "milestones": [1], "gamma": 0.1}, {}),
    ({"type": "CosineAnnealingLR", "eta_min": 1e-7}, {"T_max": LENGTH}),
    ({"type": "CosineAnnealingLR", "T_max": 1300, "eta_min": 0.0}, {}),
    ({"type": "CosineAnnealingLR", "T_max": 1, "eta_min": 1e-4}, {}),
    ({"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.0, "total_iters": 1777}, {}),
    ({"type": "LinearLR", "start_factor": 0.3, "end_factor": 0.3, "total_iters": 1}, {}),
    ({"type": "ConstantLR", "factor": 0.5, "total_iters": 1}, {}),
    ({"type": "StepLR", "step_size": 1, "gamma": 0.99}, {}),
    ({"type": "StepLR", "step_size": 7, "gamma": 0.9}, {}),
    ({"type": "CosineAnnealingWarmRestarts", "T_0": 300}, {}),
    ({"type": "CosineAnnealingWarmRestarts", "T_0": 300, "T_mult": 2, "eta_min": 1e-5}, {}),
    ({"type": "CosineAnnealingWarmRestarts", "T_0": 1, "T_mult": 3, "eta_min": 0.0}, {}),
    ({"type": "PolynomialLR", "total_iters": 1500, "power": 0.9}, {}),
    ({"type": "PolynomialLR", "total_iters": 9000, "power": 3.0}, {}),
]
CYCLES: list[Options] = [
    {"max_lr": 5e-3, "total_steps": LENGTH},
    {"max_lr": 5e-3, "total_steps": 1234, "pct_start": 0.1, "anneal_strategy": "linear"},
    {"max_lr": 1e-3, "total_steps": 777, "div_factor": 10.0, "final_div_factor": 3.0, "three_phase": True},
    {"max_lr": 1e-3, "total_steps": 999, "pct_start": 0.7, "three_phase": True, "anneal_strategy": "linear"},
    {"max_lr": 1e-3, "total_steps": 500, "pct_start": 0.0, "three_phase": True},
    {"max_lr": 1e-3, "total_steps": 500, "pct_start": 1.0},
    {"max_lr": 2e-3, "total_steps": 100, "div_factor": 0.5, "final_div_factor": 0.25},
]
CASES = [
    *REFERENCE,
    *DEFAULTS,
    *GRID,
    *(({"type": "OneCycleLR", **cycle}, {"cycle_momentum": False}) for cycle in CYCLES),
]


def torch_rates(name: str, parameters: Options, length: int, key: str = "lr") -> torch.Tensor:
    """What torch's scheduler writes into the optimizer, iteration by iteration."""
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=BASE)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **parameters)
    rates: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no optimizer step between the scheduler's
        for iteration in range(length):
            if iteration:
                scheduler.step()
            value = optimizer.param_groups[0][key]
            rates.append(value[0] if key == "betas" else value)
    return torch.tensor(rates, dtype=torch.float64)


def our_rates(options: Options, length: int) -> torch.Tensor:
    schedule = build_schedule(options, LENGTH)
    return torch.tensor([BASE * schedule(i, BASE) for i in range(1, length + 1)], dtype=torch.float64)


def differences(ours: torch.Tensor, theirs: torch.Tensor) -> list[tuple[int, float, float]]:
    """Iteration and both values wherever they differ by more than 1e-9 of theirs and 1e-12 of the base rate."""
    wrong = (ours - theirs).abs() > torch.maximum(1e-9 * theirs.abs(), torch.tensor(1e-12 * BASE))
    return [(int(index) + 1, float(ours[index]), float(theirs[index])) for index in wrong.nonzero()[:, 0]]


@pytest.mark.parametrize(("options", "more"), CASES, ids=lambda value: str(value.get("type", "")) or "torch")
def test_equals_torch_at_every_iteration(options: Options, more: Options) -> None:
    own = {name: value for name, value in options.items() if name not in ("type", "eta_min_factor")}
    # torch refuses iterations past the end of a cycle
    length = min(LENGTH, options.get("total_steps", LENGTH))
    theirs = torch_rates(options["type"], {**own, **more}, length)
    assert differences(our_rates(options, length), theirs) == []


@pytest.mark.parametrize("cycle", CYCLES, ids=str)
def test_one_cycle_moves_the_momentum_as_torch_does(cycle: Options) -> None:
    own = {"cycle_momentum": True, "base_momentum": 0.8, "max_momentum": 0.97}
    schedule = build_schedule({"type": "OneCycleLR", **cycle, **own}, LENGTH)
    assert isinstance(schedule, CyclesMomentum)
    theirs = torch_rates("OneCycleLR", {**cycle, **own}, cycle["total_steps"], key="betas")
    ours = [schedule.momentum(i) for i in range(1, cycle["total_steps"] + 1)]
    assert ours == pytest.approx(theirs.tolist(), rel=1e-12)


def test_one_cycle_leaves_the_momentum_alone_unless_told_and_holds_its_last_values() -> None:
    plain = build_schedule({"type": "OneCycleLR"}, LENGTH)
    assert isinstance(plain, CyclesMomentum)
    assert plain.momentum(1) is None
    options = {"type": "OneCycleLR", "total_steps": 40, "anneal_strategy": "linear", "cycle_momentum": True}
    schedule = build_schedule(options, LENGTH)
    assert isinstance(schedule, CyclesMomentum)
    assert schedule(40, BASE) == pytest.approx(1 / 25 / 1e4, rel=1e-9)
    assert schedule.momentum(40) == pytest.approx(0.95)
    for iteration in (41, 42, LENGTH):
        assert schedule(iteration, BASE) == schedule(40, BASE)
        assert schedule.momentum(iteration) == schedule.momentum(40)


def test_one_cycle_of_a_single_iteration_or_with_the_top_in_the_first_one() -> None:
    """Both divide by 0 in torch."""
    assert build_schedule({"type": "OneCycleLR", "total_steps": 1}, LENGTH)(1, BASE) == pytest.approx(1 / 25 / 1e4)
    top_first = build_schedule({"type": "OneCycleLR", "total_steps": 10, "pct_start": 0.1}, LENGTH)
    assert top_first(1, BASE) == 1.0


def test_a_constant_of_nothing_ends() -> None:
    """torch divides by the factor at its end."""
    schedule = build_schedule({"type": "ConstantLR", "factor": 0.0, "total_iters": 3}, LENGTH)
    assert [schedule(i, BASE) for i in range(1, 6)] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("shape", ["cosine", "1-sqrt", "linear", "1-square"])
@pytest.mark.parametrize("more", [{}, {"min_lr_ratio": 0.1}], ids=["to 0", "to a tenth"])
def test_warmup_stable_decay_equals_pytorch_optimizer(shape: str, more: Options) -> None:
    """Its shapes but the cosine fall to 0 and jump to the floor; ours are that fall, mapped onto the floor."""
    from pytorch_optimizer.lr_scheduler import get_wsd_schedule

    phases = {"num_warmup_steps": 200, "num_stable_steps": 2500, "num_decay_steps": 1700}
    floor = more.get("min_lr_ratio", 0.0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE)
    given = {"cooldown_type": shape, **(more if shape == "cosine" else {})}
    scheduler = get_wsd_schedule(optimizer, **phases, **given)
    theirs = torch.tensor([scheduler.lr_lambdas[0](step) for step in range(LENGTH)], dtype=torch.float64)
    if shape != "cosine":
        theirs[2700:] = floor + (1 - floor) * theirs[2700:]
    ours = our_rates({"type": "WarmupStableDecayLR", "cooldown_type": shape, **phases, **more}, LENGTH)
    assert differences(ours, BASE * theirs) == []


def test_warmup_stable_decay_fills_the_run_unless_told_otherwise() -> None:
    ours = our_rates({"type": "get_wsd_schedule", "num_warmup_steps": 100, "cooldown_type": "linear"}, LENGTH) / BASE
    assert ours[0] == 0
    assert ours[50] == pytest.approx(0.5)
    assert (ours[100:4501] == 1).all()
    assert ours[4750] == pytest.approx(0.5)
    assert ours[-1] == pytest.approx(1 / 500)


def stepwise_multistep(milestones: list[int], gamma: float, restarts: dict[int, float], length: int) -> torch.Tensor:
    """MultiStepRestartLR as the recursion that BasicSR describes."""
    rate, rates = BASE, []
    for passed in range(length):
        if passed in restarts:
            rate = BASE * restarts[passed]
        else:
            rate *= gamma ** milestones.count(passed)
        rates.append(rate)
    return torch.tensor(rates, dtype=torch.float64)


@pytest.mark.parametrize(
    ("own", "restarts"),
    [
        ({}, {0: 1.0}),
        ({"restarts": [0, 2000], "restart_weights": [1.0, 0.5]}, {0: 1.0, 2000: 0.5}),
        ({"restarts": [700, 2000], "restart_weights": [2.0, 0.5]}, {700: 2.0, 2000: 0.5}),
        ({"restarts": [0, 3000]}, {0: 1.0, 3000: 1.0}),
    ],
)
def test_multistep_with_restarts_equals_its_recursion(own: Options, restarts: dict[int, float]) -> None:
    milestones = [500, 700, 1500, 1500, 2000, 2600, 4000]
    ours = our_rates({"type": "MultiStepRestartLR", "milestones": milestones, "gamma": 0.3, **own}, LENGTH)
    assert differences(ours, stepwise_multistep(milestones, 0.3, restarts, LENGTH)) == []


def test_multistep_without_restarts_is_multistep() -> None:
    own = {"milestones": [400, 1000, 4999], "gamma": 0.5}
    ours = our_rates({"type": "MultiStepRestartLR", **own}, LENGTH)
    assert differences(ours, torch_rates("MultiStepLR", own, LENGTH)) == []


def test_cosines_with_weights_are_cosines_one_after_the_other() -> None:
    """Each cycle is torch's cosine from a rate of its own; the last value of a cycle belongs to it."""
    periods, weights, lowest = [1000, 700, 2000], [1.0, 0.5, 0.25], 1e-5
    options = {"type": "CosineAnnealingRestartLR", "periods": periods, "restart_weights": weights, "eta_min": lowest}
    ours = our_rates(options, LENGTH)
    begin = 0
    for number, (period, weight) in enumerate(zip(periods, weights, strict=True)):
        cycle = torch_rates("CosineAnnealingLR", {"T_max": period, "eta_min": lowest}, period + 1)
        cycle = lowest + weight * (cycle - lowest)
        first = min(number, 1)
        assert differences(ours[begin + first : begin + period + 1], cycle[first:]) == []
        begin += period
    assert torch.allclose(ours[begin:], torch.tensor(lowest, dtype=torch.float64), rtol=1e-9)
    single = our_rates({"type": "CosineAnnealingRestartLR", "periods": [LENGTH]}, LENGTH)
    assert differences(single, torch_rates("CosineAnnealingLR", {"T_max": LENGTH}, LENGTH)) == []
