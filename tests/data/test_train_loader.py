"""The stream of batches: a function of seed and position, whatever the workers, processes and interruptions."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from traiNNer.data import TrainLoader, train_loader
from traiNNer.data.order import SampleOrder, sample_generator
from traiNNer.data.workers import initialize_worker
from traiNNer.types import Sample
from traiNNer.utils.errors import ConfigError, RunError
from traiNNer.utils.images import read_image, unit_range, write_image

from .pairs import COUNT, Make, enlarged, located

BATCH, ACCUM, SEED = 2, 2, 11


def loader(make: Make, **options: Any) -> TrainLoader:
    return TrainLoader(make(), **({"batch_size": BATCH, "accum_iter": ACCUM, "seed": SEED} | options))


def taken(source: TrainLoader, iterations: int) -> list[Tensor]:
    """The samples of some iterations one by one, LQ and GT in one row."""
    batches = [batch for _ in range(iterations) for batch in source.next_batches()]
    return [
        torch.cat([lq.flatten(), gt.flatten()])
        for batch in batches
        for lq, gt in zip(batch["lq"], batch["gt"], strict=True)
    ]


def exhaust(source: TrainLoader, iterations: int) -> None:
    for _ in range(iterations):
        source.next_batches()


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_batches_are_what_the_order_says(make: Make) -> None:
    dataset, source = make(), loader(make)
    order = SampleOrder(SEED, COUNT)
    position = 0
    for _ in range(5):
        batches = source.next_batches()
        assert len(batches) == ACCUM
        for batch in batches:
            assert batch["lq"].shape == (BATCH, 3, 4, 4)
            assert batch["gt"].shape == (BATCH, 3, 8, 8)
            assert batch["gt"].dtype == torch.float32
            assert batch["fault"] == []
            for place in range(BATCH):
                ticket = order.ticket(position)
                expected = dataset.sample(ticket.index, sample_generator(SEED, ticket.epoch, ticket.place))
                assert torch.equal(batch["gt"][place], expected["gt"])
                assert torch.equal(batch["lq"][place], expected["lq"])
                assert (batch["gt_path"][place], batch["lq_path"][place]) == (expected["gt_path"], expected["lq_path"])
                position += 1


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own() -> None:
    epochs = [
        [SampleOrder(seed, 50).ticket(50 * epoch + place) for place in range(50)]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    orders = [[ticket.index for ticket in epoch] for epoch in epochs]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert [ticket[:2] for ticket in epochs[1]] == [(1, place) for place in range(50)]


def test_every_place_draws_numbers_of_its_own() -> None:
    keys = [
        (seed, epoch, place, attempt)
        for seed in range(3)
        for epoch in range(3)
        for place in range(5)
        for attempt in range(3)
    ]
    assert len({sample_generator(*key).integers(2**63) for key in keys}) == len(keys)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)])
def test_straight_equals_interrupted(before: int, after: int, make: Make) -> None:
    straight = taken(loader(make), 6)
    for done in (1, 3):  # in the middle of an epoch of 7 samples, and with batches read ahead
        first = loader(make, num_workers=before)
        start = taken(first, done)
        state = first.state_dict()
        first.close()
        second = loader(make, num_workers=after)
        second.load_state_dict(state)
        assert same(start + taken(second, 6 - done), straight)
        second.close()


def test_goes_on_after_close_and_back_to_a_state(make: Make) -> None:
    straight, source = taken(loader(make), 6), loader(make, num_workers=1)
    state = source.state_dict()
    start = taken(source, 2)
    source.close()
    assert same(start + taken(source, 4), straight)
    source.load_state_dict(state)
    assert same(taken(source, 6), straight)
    source.close()


def test_spawned_workers_read_the_same(make: Make) -> None:
    source = loader(make, num_workers=1, multiprocessing_context="spawn")
    assert same(taken(source, 4), taken(loader(make), 4))
    source.close()


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_read_what_one_process_reads(world: int, make: Make) -> None:
    whole = loader(make, batch_size=BATCH * world, accum_iter=1)
    ranks = [loader(make, rank=rank, world_size=world, accum_iter=1, num_workers=rank % 2) for rank in range(world)]
    for _ in range(5):
        parts = [taken(rank, 1) for rank in ranks]
        assert same([parts[p % world][p // world] for p in range(BATCH * world)], taken(whole, 1))
    assert [rank.state_dict() for rank in ranks] == [whole.state_dict()] * world
    for rank in ranks:
        rank.close()


def test_another_batch_size_or_number_of_processes_goes_on_at_the_same_sample(make: Make) -> None:
    straight, first = taken(loader(make), 6), loader(make)
    start = taken(first, 1)
    three = [loader(make, rank=rank, world_size=3, batch_size=1, accum_iter=1) for rank in range(3)]
    for part in three:
        part.load_state_dict(first.state_dict())
    by_position = {(4 + (rank - 4) % 3): taken(part, 1)[0] for rank, part in enumerate(three)}
    start += [by_position[position] for position in sorted(by_position)]
    last = loader(make, batch_size=5, accum_iter=1)
    last.load_state_dict(three[0].state_dict())
    assert same(start + taken(last, 3), straight[:22])


def test_other_seeds_give_other_samples(make: Make) -> None:
    assert not same(taken(loader(make), 1), taken(loader(make, seed=SEED + 1), 1))


def test_no_global_generator_is_touched(make: Make) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for workers in (0, 1):
        source = loader(make, num_workers=workers)
        taken(source, 2)
        source.close()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_the_enlarge_ratio_counts_epochs_and_nothing_else(make: Make) -> None:
    plain, enlarged_twice, automatic = loader(make), loader(make, enlarge_ratio=2), loader(make, enlarge_ratio="auto")
    assert same(taken(plain, 4), taken(enlarged_twice, 4))
    assert (plain.samples_per_epoch, plain.epoch) == (COUNT, 16 // COUNT)
    assert (enlarged_twice.samples_per_epoch, enlarged_twice.epoch) == (2 * COUNT, 1)
    assert automatic.samples_per_epoch == 2000 * BATCH // COUNT * COUNT


def test_depths_are_mixed_exactly(make: Make, folder: Path) -> None:
    import cv2

    deep = np.random.default_rng(0).integers(0, 65536, (24, 30, 3), dtype=np.uint16)
    cv2.imwrite(str(folder / "gt" / "3.png"), deep)
    dataset, source = make(), loader(make, batch_size=COUNT, accum_iter=1)
    (batch,) = source.next_batches()
    for place, ticket in enumerate(map(SampleOrder(SEED, COUNT).ticket, range(COUNT))):
        expected = dataset.stored_sample(ticket.index, sample_generator(SEED, ticket.epoch, ticket.place))["gt"]
        assert expected.dtype == (torch.uint16 if ticket.index == 3 else torch.uint8)
        assert torch.equal(batch["gt"][place], unit_range(expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_replaced_and_moves_no_other(workers: int, make: Make, folder: Path) -> None:
    straight, dataset = taken(loader(make), 3), make()
    bad = folder / "lq" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    source = loader(make, num_workers=workers)
    position, faults = 0, 0
    for _ in range(3):
        for batch in source.next_batches():
            expected_faults = []
            for lq, gt in zip(batch["lq"], batch["gt"], strict=True):
                ticket = SampleOrder(SEED, COUNT).ticket(position)
                row = torch.cat([lq.flatten(), gt.flatten()])
                if ticket.index == 3:
                    generator = sample_generator(SEED, ticket.epoch, ticket.place, 1)
                    sample = dataset.sample(int(generator.integers(COUNT)), generator)
                    assert torch.equal(lq, sample["lq"])
                    assert torch.equal(gt, sample["gt"])
                    expected_faults.append(f"{bad}: damaged or cut short")
                else:
                    assert torch.equal(row, straight[position])
                position += 1
            assert batch["fault"] == expected_faults
            faults += len(expected_faults)
        if faults == 1:
            assert source.state_dict() == {"consumed": position, "faults": 1}
            break
    assert faults == 1
    source.close()


def test_more_than_one_percent_ends_the_run_but_one_file_does_not(make: Make, folder: Path) -> None:
    """Seven pairs: the bad one is met once in an epoch, twice in 100 samples or more is too much."""
    (folder / "gt" / "2.png").write_bytes(b"no image")
    source = loader(make, batch_size=1, accum_iter=1)
    while source.state_dict()["faults"] == 0:
        source.next_batches()
    assert source.state_dict()["consumed"] <= COUNT
    with pytest.raises(RunError, match=r"^2 of \d+ samples drawn .*, more than 1 %; the last: .*2\.png: not a PNG"):
        exhaust(source, COUNT + 1)
    assert source.state_dict()["faults"] == 2


def test_one_bad_file_of_many_never_ends_a_run(tmp_path: Path, make: Make) -> None:
    for number in range(150):
        write_image(tmp_path / "many" / f"{number}.bmp", enlarged(located(number)))
    (tmp_path / "many" / "7.bmp").write_bytes(b"")
    dataset = make(dataroot_gt=str(tmp_path / "many"), dataroot_lq=None)
    source = TrainLoader(dataset, batch_size=50, seed=0)
    faults = sum(len(batch["fault"]) for _ in range(12) for batch in source.next_batches())
    assert faults == source.state_dict()["faults"]
    assert 4 <= faults <= 8  # once in each of four epochs, and perhaps as a replacement


def test_nothing_readable_ends_the_run_at_once(make: Make, folder: Path) -> None:
    source = loader(make)
    for file in (folder / "lq").iterdir():
        file.write_bytes(b"")
    with pytest.raises(RunError, match=r"8 files in a row cannot be read, among them .*: the file is empty"):
        source.next_batches()


def test_a_file_that_shrank_is_a_fault_too(make: Make, folder: Path) -> None:
    source = loader(make, batch_size=COUNT, accum_iter=1)
    write_image(folder / "lq" / "5.png", read_image(folder / "lq" / "5.png")[:8])
    (batch,) = source.next_batches()
    assert batch["fault"] == [
        f"{folder / 'lq' / '5.png'}: is 15 x 8 px, but its GT is 30 x 24; at scale 2 it must be 30 x 16"
    ]


def test_an_empty_data_set_is_refused(make: Make, folder: Path) -> None:
    for file in (folder / "lq").iterdir():
        file.rename(folder / "lq" / f"other{file.name}")
    with pytest.raises(ConfigError, match="the data set tiny is empty"):
        loader(make)


def test_a_killed_worker_ends_the_run_with_a_message(make: Make) -> None:
    source = loader(make, num_workers=1)
    before = set(psutil.Process().children())
    source.next_batches()
    (worker,) = set(psutil.Process().children()) - before
    worker.kill()
    with pytest.raises(RunError, match=r"^a loader process died .*lower num_worker_per_gpu$"):
        exhaust(source, 20)
    source.close()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGCHLD")
def test_the_death_of_a_worker_is_told_where_a_batch_is_waited_for_and_nowhere_else(make: Make) -> None:
    source = loader(make, num_workers=2)
    before = set(psutil.Process().children())
    source.next_batches()
    for worker in set(psutil.Process().children()) - before:
        worker.kill()
        while worker.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        time.sleep(0.05)  # here a step would be made: SIGCHLD has come
    with pytest.raises(RunError, match="killed by signal"):
        source.next_batches()
    os.kill(os.getpid(), signal.SIGCHLD)
    source.close()
    os.kill(os.getpid(), signal.SIGCHLD)
    exhaust(source, 3)  # new workers


def signal_itself(number: int) -> None:
    initialize_worker(0)
    os.kill(os.getpid(), number)
    os._exit(7)


@pytest.mark.skipif(os.name == "nt", reason="os.kill ends processes there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_ignore_signals_also_where_none_were_held_back(number: signal.Signals) -> None:
    """Windows cannot hold signals back while workers start; there it is this alone that keeps them."""
    process = multiprocessing.get_context("fork").Process(target=signal_itself, args=(number,))
    process.start()
    process.join(20)
    assert process.exitcode == 7


def test_close_ends_the_workers(make: Make) -> None:
    before = set(psutil.Process().children())
    source = loader(make, num_workers=2)
    source.next_batches()
    workers = set(psutil.Process().children()) - before
    assert len(workers) == 2
    source.close()
    deadline = time.monotonic() + 10
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pids() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.pid}


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_stay_at_the_end_of_an_epoch_if_they_are_persistent(make: Make, persistent: bool) -> None:
    expected = TrainLoader(make(), batch_size=4, seed=0)
    loader = TrainLoader(make(), batch_size=4, seed=0, num_workers=1, persistent_workers=persistent)
    before: set[int] = set()
    for number in range(4):  # 7 images: the second batch ends the first epoch, the fourth the second
        (batch,), (alike,) = loader.next_batches(), expected.next_batches()
        assert batch["gt_path"] == alike["gt_path"]
        assert torch.equal(batch["lq"], alike["lq"])
        if number == 0:
            before = pids()
    loader.start()
    assert before
    assert (pids() == before) is persistent
    loader.close()


@pytest.mark.parametrize("prefetch", [1, 3])
def test_so_many_batches_are_read_ahead(make: Make, monkeypatch: pytest.MonkeyPatch, prefetch: int) -> None:
    dataset, count = make(), multiprocessing.Value("i", 0)
    real = dataset.stored_sample

    def counted(index: int, generator: np.random.Generator) -> Sample:
        with count.get_lock():
            count.value += 1
        return real(index, generator)

    monkeypatch.setattr(dataset, "stored_sample", counted)
    loader = TrainLoader(
        dataset, batch_size=2, seed=0, num_workers=1, prefetch_factor=prefetch, multiprocessing_context="fork"
    )
    loader.start()
    deadline = time.monotonic() + 20
    while count.value < 2 * prefetch and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # for what should not come
    assert count.value == 2 * prefetch
    loader.close()


@pytest.mark.parametrize(
    ("pin", "device", "expected"), [(True, "cuda", True), (False, "cuda", False), (True, "cpu", False)]
)
def test_memory_is_pinned_where_it_helps(
    make: Make, monkeypatch: pytest.MonkeyPatch, pin: bool, device: str, expected: bool
) -> None:
    """Whether pages are locked needs a GPU to see; this is what torch's loader is asked for."""
    asked = []

    class Loader:
        def __init__(self, *_: Any, pin_memory: bool, **__: Any) -> None:
            asked.append(pin_memory)

    monkeypatch.setattr(train_loader, "DataLoader", Loader)
    monkeypatch.setattr(train_loader, "start", lambda _: iter(()))
    TrainLoader(make(), batch_size=2, seed=0, num_workers=1, pin_memory=pin, device_hint=device).start()
    assert asked == [expected]


def test_a_generator_for_each_sample_is_cheap() -> None:
    start = time.perf_counter()
    for place in range(500):
        sample_generator(SEED, 0, place)
    assert (time.perf_counter() - start) / 500 < 500e-6  # 11 us on an idle core; decoding takes milliseconds
