"""DynamicBatchSizeOptimizer on simulated memory."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.automations.memory_traces import MIB, Device, Trainer, run_of
from traiNNer.training_automations.base import (
    Automation,
    MemoryFacts,
    Note,
    ObservesMemory,
    OutOfMemoryFacts,
    RunFacts,
    SetBatchSize,
)
from traiNNer.training_automations.batch_memory import BatchMemory
from traiNNer.training_automations.dynamicbatchsizeoptimizer_automation import DynamicBatchSizeOptimizer
from traiNNer.utils.errors import ConfigError

OFTEN = 40
"""Iterations between growths, so that tests are short."""


def automation(**options: Any) -> DynamicBatchSizeOptimizer:
    return DynamicBatchSizeOptimizer(**({"adjustment_frequency": OFTEN} | options))


def trainer(device: Device | None = None, run: RunFacts | None = None, **options: Any) -> Trainer:
    return Trainer(automation(**options), device or Device(), run or run_of())


def test_is_an_automation_that_observes_memory() -> None:
    made: Automation = automation()
    assert isinstance(made, ObservesMemory)
    assert (made.name, made.max_adjustments) == ("DynamicBatchSizeOptimizer", 20)


def random_device(seed: int) -> tuple[Device, int]:
    """A device in which 3 to 30 images fit, and a size to begin with."""
    rng = np.random.default_rng(seed)
    total = rng.uniform(4000, 80_000)
    a, others = total * rng.uniform(0.02, 0.4), total * rng.uniform(0, 0.1)
    c = (0.8 * total - a - others) / rng.uniform(3, 30)
    device = Device(a, c, total, noise=rng.uniform(0, 0.02), others=lambda _: others, seed=seed)
    return device, int(rng.choice([1, 2, 4, 8, 16, 32]))


def test_random_devices_are_filled_without_failing() -> None:
    """At most one failure, and 90 % of the largest size below target - margin, each in 95 % of 200 devices."""
    calm, full, kept = [], [], []
    for seed in range(200):
        device, start = random_device(seed)
        found = trainer(device, run_of(start), adjustment_frequency=20).iterate(900)
        calm.append(len(found.failures) <= 1 if device.fits(1, start) else found.failures[-1] < 20)
        full.append(found.size >= 0.9 * device.largest(0.8))
        kept.append((device.a + device.c * found.size + device.others(0)) / device.total <= 0.85 * 1.02)
        assert sum(decision.counts for _, decision in found.decisions) <= 20
    assert np.mean(calm) >= 0.95
    assert np.mean(full) >= 0.95
    assert np.mean(kept) >= 0.95


def test_grows_by_half_at_most_and_at_its_frequency() -> None:
    found = trainer(Device(a=500, c=50), run_of(8)).iterate(600)
    steps = [(at, decision.batch_size) for at, decision in found.decisions if isinstance(decision, SetBatchSize)]
    assert [size for _, size in steps] == [12, 18, 27, 32]
    assert all(later - earlier >= OFTEN for (earlier, _), (later, _) in pairwise(steps))
    assert steps[0][0] == OFTEN
    assert found.texts[0] == "Batch size adjusted from 8 to 12 due to free VRAM"
    assert found.failures == []


def test_what_is_held_before_the_first_step_is_not_the_samples() -> None:
    """Where that is most of the memory, growth from one size alone would never begin."""
    device = Device(a=5000, c=190, noise=0)
    assert trainer(device, run_of(2)).iterate(600).size == 2
    known = trainer(device, run_of(2))
    before = {"iteration": 0, "batch_size": 0, "total": 8000 * MIB}
    known.automation.observe_memory(MemoryFacts(used=5000 * MIB, reserved=4800 * MIB, **before))
    resumed = automation()
    resumed.start(run_of(2))
    resumed.load_state_dict(known.automation.state_dict())
    assert resumed.state_dict() == known.automation.state_dict()
    assert known.iterate(600).size == device.largest(0.8) == 6
    assert known.failures == []
    assert known.texts[0] == "Batch size adjusted from 2 to 3 due to free VRAM"


def test_max_batch_size_is_32_or_what_was_configured_or_what_the_options_say() -> None:
    roomy = Device(a=100, c=1)
    assert trainer(roomy).iterate(1500).size == 32
    assert trainer(roomy, run_of(48)).iterate(1500).size == 48
    assert trainer(roomy, max_batch_size=40).iterate(1500).size == 40
    assert trainer(roomy, run_of(images=10)).iterate(1500).size == 10
    assert trainer(roomy, run_of(images=20, accum_iter=3)).iterate(1500).size == 6


def test_a_size_outside_the_bounds_is_brought_into_them() -> None:
    found = trainer(run=run_of(8), max_batch_size=6).iterate(20)
    assert found.texts == ["Batch size adjusted from 8 to 6 due to max_batch_size"]
    assert not found.decisions[0][1].counts
    assert trainer(run=run_of(2), min_batch_size=4).iterate(20).size == 4


@pytest.mark.parametrize(
    ("options", "key"),
    [({"safety_margin": 0.85}, "safety_margin"), ({"min_batch_size": 4, "max_batch_size": 3}, "max_batch_size")],
)
def test_bounds_that_contradict_each_other_are_refused(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        automation(**options)
    assert caught.value.problems[0].key == key


def test_shrinks_within_an_interval_when_others_take_memory_and_grows_back() -> None:
    def others(iteration: int) -> float:
        return 1600 if 600 < iteration <= 1000 else 200

    device = Device(c=400, others=others)
    found = trainer(device).iterate(600)
    assert found.size == device.largest(0.8) == 14
    found.iterate(OFTEN)
    assert found.size == device.largest(0.8, 601) == 10
    assert found.texts[-1] == "Batch size adjusted from 14 to 10 due to high VRAM usage"
    assert found.decisions[-1][1].counts
    assert found.iterate(360).size == 10
    assert found.iterate(200).size == 14
    assert found.failures == []


def test_one_reading_alone_shrinks_nothing() -> None:
    found = trainer(Device(a=500, c=500, others=lambda iteration: 1500 if iteration == 900 else 200)).iterate(890)
    decided = len(found.decisions)
    found.iterate(60)
    assert found.failures == []
    assert len(found.decisions) == decided


def test_between_limit_and_target_it_stays() -> None:
    """Use of 82 %: more than a growth may reach, less than what a batch shrinks for."""
    device = Device(a=0, c=1640, others=lambda _: 0, total=8000)
    assert trainer(device, run_of(4)).iterate(500).decisions == []


def test_does_not_grow_for_three_intervals_after_a_shrink() -> None:
    def others(iteration: int) -> float:
        return 1500 if 600 < iteration <= 620 else 200

    found = trainer(Device(c=300, others=others)).iterate(1200)
    shrunk = next(at for at, decision in found.decisions if "high VRAM usage" in decision.text)
    after = [at for at, _ in found.decisions if at > shrunk]
    assert shrunk <= 630
    assert shrunk + 3 * OFTEN <= after[0] <= shrunk + 3 * OFTEN + 10


# --- out of memory


def failing(iteration: int, size: int, fitted: int) -> OutOfMemoryFacts:
    return OutOfMemoryFacts(iteration=iteration, network="net_g", batch_size=size, fitted=fitted)


def test_a_failure_goes_to_the_pieces_and_does_not_count() -> None:
    found = trainer(Device(a=500, c=1500), run_of(8)).iterate(1)
    assert found.texts == ["Batch size adjusted from 8 to 4 due to out of memory"]
    assert not found.decisions[0][1].counts
    assert found.decisions[0][0] == 1
    assert found.size == 4
    assert found.iterate(3000).failures == [1]


def test_a_growth_that_fails_goes_back_to_what_ran() -> None:
    """At 9 samples and more, a kernel of another kind takes more than the line says."""

    class Stepped(Device):
        def need(self, iteration: int, size: int) -> float:
            return super().need(iteration, size) + (5000 if size > 8 else 0)

    found = trainer(Stepped(a=500, c=300), run_of(8)).iterate(5000)
    assert found.texts[0:2] == [
        "Batch size adjusted from 8 to 12 due to free VRAM",
        "Batch size adjusted from 12 to 8 due to out of memory",
    ]
    first, second, third = found.failures[:3]
    assert first == OFTEN + 1
    failed = [found.sizes[at - 1] for at in (first, second, third)]
    assert failed == [12, 10, 9]  # half of the way each time
    for at, size, wait in zip((first, second, third), failed, (20, 40, 80), strict=True):
        assert all(later < size for later in found.sizes[at : at + wait * OFTEN])
    assert second - first > 6 * OFTEN
    assert third - second > 12 * OFTEN


def test_each_failure_doubles_the_wait_and_never_the_failing_size_or_larger() -> None:
    made = automation()
    made.start(run_of(16))
    waits, ceilings = [], []
    for number in range(9):
        made.observe_out_of_memory(failing(1, 16, 8))
        (decision,) = made.decide(1)
        assert isinstance(decision, SetBatchSize)
        assert decision.batch_size == 8
        waits.append(made.state_dict()["state"]["pause"] - 1)
        ceilings.append((made.state_dict()["state"]["ceiling"], made.state_dict()["state"]["lifted"] - 1))
        assert made.state_dict()["state"]["failures"] == number + 1
    assert waits == [3 * OFTEN * 2 ** min(n, 6) for n in range(1, 10)]
    assert ceilings == [(16, 20 * OFTEN * 2 ** min(n, 6)) for n in range(9)]


def test_a_size_that_ran_well_and_fails_is_left_for_the_pieces() -> None:
    """Others have taken memory since the last reading: what it says holds no more."""
    found = trainer(Device(a=500, c=400, others=lambda i: 4200 if i > 605 else 200)).iterate(606)
    assert found.texts[-1] == "Batch size adjusted from 14 to 7 due to out of memory"
    assert found.iterate(100).failures == [606]


def test_of_two_failures_in_one_iteration_the_smaller_counts() -> None:
    made = automation()
    made.start(run_of(16))
    made.observe_out_of_memory(failing(3, 16, 8))
    made.observe_out_of_memory(failing(3, 8, 4))
    assert [decision.text for decision in made.decide(3)] == ["Batch size adjusted from 8 to 4 due to out of memory"]


def test_the_smallest_size_that_fails_is_told_once() -> None:
    made = automation(min_batch_size=4)
    made.start(run_of(4))
    told = []
    for iteration in range(1, 30):
        made.observe_out_of_memory(failing(iteration, 4, 2))
        told += made.decide(iteration)
    assert [type(decision) for decision in told] == [Note]
    assert not told[0].counts
    assert "batch size 4 does not fit and is the smallest allowed" in told[0].text


# --- throughput


def test_a_larger_batch_that_is_slower_is_left_again() -> None:
    def rate(iteration: int, size: int) -> float:
        return 100 if size <= 8 else 88

    found = trainer(Device(c=50, rate=rate), run_of(8)).iterate(2500)
    assert found.texts[:2] == [
        "Batch size adjusted from 8 to 12 due to free VRAM",
        "Batch size adjusted from 12 to 8 due to lower throughput",
    ]
    tries = [at for at, decision in found.decisions if decision.reason == "free VRAM"]
    refusals = [at for at, decision in found.decisions if decision.reason == "lower throughput"]
    assert all(decision.counts is (decision.reason == "free VRAM") for _, decision in found.decisions)
    assert refusals[0] - tries[0] <= 30
    waits = [later - earlier for earlier, later in zip(refusals, tries[1:], strict=False)]
    assert waits == sorted(waits)
    assert waits[1] >= 1.9 * waits[0]
    assert found.sizes.count(8) > 0.9 * len(found.sizes)


def test_a_rate_within_three_percent_stays() -> None:
    found = trainer(Device(c=50, rate=lambda _, size: 100 if size <= 8 else 98), run_of(8)).iterate(600)
    assert found.size == 32
    assert {decision.reason for _, decision in found.decisions} == {"free VRAM"}


def test_what_is_somewhat_slower_is_measured_twice() -> None:
    slow = trainer(Device(c=50, rate=lambda _, size: 100 if size <= 8 else 95), run_of(8)).iterate(120)
    (tried, _), (left, decision) = slow.decisions
    assert decision.reason == "lower throughput"
    assert left - tried == 50  # 10 more than 3 to settle, 20 and 20, as it is asked every 10 iterations
    short = trainer(Device(c=50, rate=lambda i, _: 95 if OFTEN < i <= OFTEN + 30 else 100), run_of(8)).iterate(300)
    assert {decision.reason for _, decision in short.decisions} == {"free VRAM"}


def test_a_machine_that_has_become_slower_is_not_the_batch() -> None:
    """Back at the size before, which is as slow now: the larger one is tried again at the next occasion."""
    found = trainer(Device(c=50, rate=lambda i, _: 80 if i > OFTEN else 100), run_of(8)).iterate(200)
    assert found.texts[:3] == [
        "Batch size adjusted from 8 to 12 due to free VRAM",
        "Batch size adjusted from 12 to 8 due to lower throughput",
        "Batch size adjusted from 8 to 12 due to free VRAM",
    ]
    assert found.decisions[2][0] - found.decisions[1][0] <= OFTEN + 10
    assert found.iterate(200).size == 32


def test_one_slow_step_in_a_trial_refuses_nothing() -> None:
    found = trainer(Device(c=50, rate=lambda i, size: 1 if i % 7 == 0 else 100), run_of(8)).iterate(600)
    assert found.size == 32


def test_memory_that_spills_is_told_and_left_at_once() -> None:
    found = trainer(Device(c=50, rate=lambda _, size: 100 if size <= 12 else 20), run_of(8)).iterate(400)
    assert found.texts[1:3] == [
        "Batch size adjusted from 12 to 18 due to free VRAM",
        "Batch size adjusted from 18 to 12 due to GPU memory spilled into system memory",
    ]
    (tried, _), (left, _) = found.decisions[1:3]
    assert left - tried == 10
    assert max(found.sizes[left : left + 6 * OFTEN]) == 12
    assert max(found.sizes[left:]) == 15  # half of the way


def test_without_a_clock_memory_alone_decides() -> None:
    assert trainer(Device(c=50, rate=lambda *_: float("inf")), run_of(8)).iterate(600).size == 32


# --- what a decision asks for


def test_follow_gives_every_micro_batch_the_size_and_scales_the_rate() -> None:
    for scaling, exponent in (("none", 0), ("sqrt", 0.5), ("linear", 1)):
        found = trainer(Device(c=50), run_of(4, accum_iter=3), lr_scaling=scaling).iterate(60)
        (decision,) = [decision for _, decision in found.decisions if isinstance(decision, SetBatchSize)]
        assert decision.micro_batches == (6, 6, 6)
        assert decision.rate_factor == pytest.approx(1.5**exponent)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 9),
    accum=st.integers(1, 6),
    c=st.floats(20, 900),
    smallest=st.integers(1, 3),
)
def test_keep_splits_the_same_images_evenly(batch: int, accum: int, c: float, smallest: int) -> None:
    run = run_of(batch, accum_iter=accum)
    found = trainer(Device(c=c), run, effective_batch="keep", lr_scaling="linear", min_batch_size=smallest)
    found.iterate(400)
    for _, decision in found.decisions:
        assert isinstance(decision, SetBatchSize)
        assert f" to {decision.batch_size} due" in decision.text
        assert sum(decision.micro_batches) == batch * accum
        assert decision.rate_factor == 1
    assert sum(found.micro_batches) == batch * accum
    assert max(found.micro_batches) - min(found.micro_batches) <= 1
    assert max(found.sizes) <= batch * accum


def test_keep_grows_to_one_micro_batch_where_it_fits() -> None:
    found = trainer(Device(c=50), run_of(4, accum_iter=3), effective_batch="keep").iterate(400)
    assert found.micro_batches == (12,)
    assert found.texts == [
        "Batch size adjusted from 4 to 6 due to free VRAM",
        "Batch size adjusted from 6 to 12 due to free VRAM",
    ]


def test_a_decision_that_is_dropped_is_not_believed() -> None:
    """The manager has reached `max_adjustments`: sizes stay, also through a failure, and nothing is judged."""
    found = Trainer(automation(), Device(c=50, rate=lambda i, _: 100 if i < 200 else 10), run_of(8), most=1)
    found.iterate(800)
    assert found.texts == ["Batch size adjusted from 8 to 12 due to free VRAM"]
    assert found.automation.state_dict()["state"]["size"] == 12
    assert found.automation.state_dict()["state"]["ceiling"] == 0


def test_a_size_that_has_to_stay_stays() -> None:
    found = Trainer(automation(), Device(c=50), run_of(8, fixed="net_g is compiled into CUDA graphs"))
    assert found.lines == ["the batch size stays at 8: net_g is compiled into CUDA graphs"]
    found.automation.observe_out_of_memory(failing(1, 8, 4))
    assert found.automation.decide(1) == []
    assert found.iterate(300).decisions == []
    assert found.automation.fallback() == []


def test_the_start_says_what_is_watched() -> None:
    (line,) = automation().start(run_of(8, accum_iter=2, total_memory=24 * 2**30))
    assert line == (
        "watches memory of 24.0 GiB: batch sizes from 1 to 32 (2 of them make a step), now 8; larger while use stays "
        "below 80%, smaller above 85%"
    )
    (line,) = automation().start(replace(run_of(8), first_iteration=501))
    assert "batch sizes from 1 to 32; larger" in line  # a checkpoint has the size that is used now
    (line,) = automation(effective_batch="keep").start(run_of(8, accum_iter=2))
    assert "batch sizes from 1 to 16, in steps of 16 images, now 8" in line


def test_the_fallback_is_the_configured_size_if_that_has_run() -> None:
    def size(found: Trainer) -> tuple[int, ...]:
        (decision,) = found.automation.fallback()
        assert isinstance(decision, SetBatchSize)
        assert not decision.counts
        return decision.micro_batches

    assert size(trainer(run=run_of(8, accum_iter=2))) == (8, 8)
    assert size(trainer(Device(c=50), run_of(8)).iterate(300)) == (8,)
    assert size(trainer(Device(a=500, c=1500), run_of(8)).iterate(100)) == (4,)
    assert size(trainer(Device(c=50), run_of(8), fallback_batch_size=5).iterate(300)) == (5,)
    assert size(trainer(run=run_of(3, accum_iter=2), effective_batch="keep", fallback_batch_size=2)) == (2, 2, 2)


# --- what is trained changes


def test_a_loss_that_begins_changes_what_a_sample_takes() -> None:
    """Readings before it say nothing any more; the batch shrinks to what fits now, and does not swing."""

    class Heavier(Device):
        def need(self, iteration: int, size: int) -> float:
            return super().need(iteration, size) * (1.3 if iteration > 700 else 1)

    found = trainer(Heavier(a=500, c=400)).iterate(700)
    assert found.size == 14
    found.automation.observe_phase(700, "losses")
    found.iterate(1500)
    assert found.size == int((0.8 * 8000 - 200) / 1.3 - 500) // 400 == 10
    assert len([at for at, _ in found.decisions if at > 1000]) <= 2


def test_a_loss_that_ends_makes_room() -> None:
    class Lighter(Device):
        def need(self, iteration: int, size: int) -> float:
            return super().need(iteration, size) * (0.6 if iteration > 700 else 1)

    found = trainer(Lighter(a=500, c=400)).iterate(700)
    assert found.size == 14
    found.automation.observe_phase(700, "losses")
    assert found.iterate(200).size == int((0.8 * 8000 - 200) / 0.6 - 500) // 400 == 24


# --- state


def replayed(straight: Trainer, cut: int, **options: Any) -> Trainer:
    """The same run with a resume after `cut` iterations."""
    first = trainer(straight.device, straight.run, **options).iterate(cut)
    state = json.loads(json.dumps(first.automation.state_dict()))
    again = Trainer(automation(**options), first.device, first.run, iteration=cut, micro_batches=first.micro_batches)
    again.automation.load_state_dict(state)
    again.peak = first.peak
    again.sizes, again.decisions = list(first.sizes), list(first.decisions)
    return again


def busy() -> Device:
    """All that can happen: others come and go, sizes are slow, sizes fail."""

    def others(iteration: int) -> float:
        return 200 + 2500 * (iteration % 700 > 400) + 2600 * (1203 < iteration < 1300)

    return Device(a=500, c=300, noise=0.02, others=others, rate=lambda _, size: 100 if size != 9 else 90)


@pytest.mark.parametrize("options", [{}, {"effective_batch": "keep"}], ids=["follow", "keep"])
def test_a_resumed_run_decides_as_a_straight_one(options: dict[str, Any]) -> None:
    run = run_of(6, accum_iter=3 if options else 1)
    straight = trainer(busy(), run, **options).iterate(1500)
    assert len({decision.reason for _, decision in straight.decisions}) >= 3
    for at, _ in [*straight.decisions[:8], (0, None), (333, None), (1207, None)]:
        for cut in (at, at + 5):
            again = replayed(straight, cut, **options).iterate(1500 - cut)
            assert again.sizes == straight.sizes
            assert again.decisions == straight.decisions


def test_its_state_has_a_bounded_size() -> None:
    def length(state: Any) -> int:
        if isinstance(state, dict):
            return sum(map(length, state.values()))
        return sum(map(length, state)) if isinstance(state, list) else 1

    found = trainer(busy(), run_of(6)).iterate(1000)
    early = length(found.automation.state_dict())
    found.iterate(20_000)
    assert length(found.automation.state_dict()) <= early + 4  # a trial or a failure may be on
    assert length(found.automation.state_dict()) < 170


def test_a_resume_with_other_bounds_keeps_them() -> None:
    first = trainer(Device(c=50), run_of(8)).iterate(500)
    assert first.size == 32
    options = {"max_batch_size": 10, "vram_history_size": 4}
    again = Trainer(automation(**options), first.device, first.run, iteration=500, micro_batches=first.micro_batches)
    again.automation.load_state_dict(first.automation.state_dict())
    again.iterate(100)
    assert again.texts == ["Batch size adjusted from 32 to 10 due to max_batch_size"]
    assert len(again.automation.state_dict()["memory"]["readings"]) == 4


@pytest.mark.parametrize(("bound", "held"), [(None, 32), (10, 10), (8, None)])
def test_what_it_holds_through_a_resume_is_its_size_within_the_present_bounds(
    bound: int | None, held: int | None
) -> None:
    first = trainer(Device(c=50), run_of(8)).iterate(500)
    assert first.size == 32
    again = Trainer(automation(max_batch_size=bound), first.device, first.run)
    assert again.automation.holding() == []
    again.automation.load_state_dict(first.automation.state_dict())
    sizes = [decision.batch_size for decision in again.automation.holding() if isinstance(decision, SetBatchSize)]
    assert sizes == ([] if held is None else [held])
    again = Trainer(automation(max_batch_size=bound), first.device, run_of(8, fixed="CUDA graphs"))
    again.automation.load_state_dict(first.automation.state_dict())
    assert again.automation.holding() == []


def test_a_size_that_somebody_else_set_is_seen() -> None:
    found = trainer(Device(c=50), run_of(8)).iterate(OFTEN + 5)
    assert found.size == 12
    found.micro_batches = (5,)
    found.iterate(15)
    state = found.automation.state_dict()["state"]
    assert state["size"] == 5
    assert state["trial"] == []


def test_readings_of_sizes_long_gone_are_kept_while_those_of_the_most_read_give_way() -> None:
    memory = BatchMemory(5)
    for iteration, size in enumerate([2, 3, *[4] * 40], 1):
        used = 10 * size + (iteration == 5)
        memory.take(MemoryFacts(iteration=iteration, batch_size=size, used=used, reserved=used, total=1000))
    assert memory.readings == [[2, 20], [3, 30], [4, 40], [4, 40], [4, 40]]
    assert (memory.slope, memory.largest) == (10, {2: 20, 3: 30, 4: 40})


def test_a_growth_that_other_bounds_take_back_on_a_resume_is_not_judged() -> None:
    """Its batch is gone: a slower machine would otherwise adjust the size from 4 to 4."""
    device = Device(rate=lambda iteration, size: 100 if iteration <= 120 else 80)
    first = trainer(device, run_of(4), adjustment_frequency=100).iterate(120)
    assert first.size == 6
    again = Trainer(automation(max_batch_size=4, adjustment_frequency=100), device, first.run, iteration=120)
    again.automation.load_state_dict(json.loads(json.dumps(first.automation.state_dict())))
    assert [each for each in again.automation.holding() if isinstance(each, SetBatchSize)] == []
    again.iterate(300)
    assert again.texts == []
