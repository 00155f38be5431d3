"""Sizes of micro-batches that change while batches are on their way: no sample is lost, repeated or moved."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traiNNer.data import TrainLoader, slicing
from traiNNer.data.slicing import Grid, Slicer, join
from traiNNer.types import Batch
from traiNNer.utils.errors import RunError

from .pairs import COUNT, Make

SEED = 5

sizes = st.lists(st.integers(1, 5), min_size=1, max_size=3)
plans = st.lists(st.tuples(sizes, st.integers(1, 3)), min_size=1, max_size=4)
"""Sizes, and for how many iterations."""
quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(quick, max_examples=4)


def rows(batches: list[Batch]) -> list[tuple[str, torch.Tensor]]:
    """The samples of some batches: GT's file, and LQ and GT in one row."""
    return [
        (path, torch.cat([lq.flatten(), gt.flatten()]))
        for batch in batches
        for path, lq, gt in zip(batch["gt_path"], batch["lq"], batch["gt"], strict=True)
    ]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


def follow(source: TrainLoader, plan: list[tuple[list[int], int]]) -> Iterator[list[Batch]]:
    """The micro-batches of each iteration of a plan, whose sizes are as it says."""
    for micro_batches, iterations in plan:
        source.set_micro_batches(micro_batches)
        assert source.micro_batches == tuple(micro_batches)
        for _ in range(iterations):
            batches = source.next_batches()
            assert [len(batch["lq"]) for batch in batches] == micro_batches
            yield batches


def one_by_one(make: Make, count: int, **options: Any) -> list[Any]:
    source = TrainLoader(make(), batch_size=1, seed=SEED, **options)
    return rows([batch for _ in range(count) for batch in source.next_batches()])


def check(make: Make, plan: list[tuple[list[int], int]], workers: int, world: int, cut: int) -> None:
    """Each rank's samples are those of a loader of batch size 1; also when another loader takes over after `cut`."""
    for rank in range(world):
        options: dict[str, Any] = {"rank": rank, "world_size": world, "seed": SEED}
        source = TrainLoader(make(), batch_size=3, accum_iter=2, num_workers=workers, **options)
        assert source.micro_batches == (3, 3)
        first = source.next_batches() if cut % 2 else []  # or the sizes change before anything was read
        taken = list(follow(source, plan))
        source.close()
        found = rows([*first, *(batch for batches in taken for batch in batches)])
        expected = one_by_one(make, len(found), rank=rank, world_size=world)
        assert same(found, expected)
        assert source.state_dict()["consumed"] == len(found) * world

        again = TrainLoader(make(), batch_size=2, num_workers=workers, **options)
        iterations = min(cut, sum(count for _, count in plan))
        begun = rows([batch for batches in islice(follow(again, plan), iterations) for batch in batches])
        last = TrainLoader(make(), batch_size=4, **options)
        last.load_state_dict(again.state_dict())
        again.close()
        count = len(begun) + 8
        assert same(
            begun + rows([*last.next_batches(), *last.next_batches()]),
            one_by_one(make, count, **options_of(rank, world)),
        )


def options_of(rank: int, world: int) -> dict[str, Any]:
    return {"rank": rank, "world_size": world}


@quick
@given(plan=plans, cut=st.integers(0, 6))
@pytest.mark.parametrize("world", [1, 2])
def test_whatever_the_sizes_the_samples_are_those_of_batch_size_1(
    make: Make, world: int, plan: list[tuple[list[int], int]], cut: int
) -> None:
    check(make, plan, 0, world, cut)


@few
@given(plan=plans, cut=st.integers(0, 6))
@pytest.mark.parametrize("world", [1, 2])
def test_the_same_with_batches_on_their_way_from_two_workers(
    make: Make, world: int, plan: list[tuple[list[int], int]], cut: int
) -> None:
    check(make, plan, 2, world, cut)


@given(before=sizes, after=sizes, ahead=st.integers(0, 9), iterations=st.integers(0, 3))
def test_what_is_not_on_its_way_yet_comes_in_the_new_sizes(
    before: list[int], after: list[int], ahead: int, iterations: int
) -> None:
    """From where the reading ahead ended, chunks end where micro-batches do, and soon they are micro-batches."""
    grid = Grid(before)
    consumed = iterations * sum(before)
    place = consumed
    for _ in range(ahead):
        place += grid.rest(place)
    grid.change(after, consumed)
    ends = [consumed]
    while ends[-1] <= place + sum(after):
        ends.append(ends[-1] + after[(len(ends) - 1) % len(after)])
    for end in ends:
        if end > place:
            assert place + grid.rest(place) == end
            place = end


class Work:
    """Counts what is cut and what is joined."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._part, self._cat = slicing._part, torch.cat
        monkeypatch.setattr(slicing, "_part", self.part)
        monkeypatch.setattr(torch, "cat", self.cat)

    def part(self, *arguments: Any) -> Batch:
        self.count += 1
        return self._part(*arguments)

    def cat(self, *arguments: Any) -> torch.Tensor:
        self.count += 1
        return self._cat(*arguments)

    def of(self, source: TrainLoader, iterations: int) -> int:
        before = self.count
        for _ in range(iterations):
            source.next_batches()
        return self.count - before


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_the_right_size_pass_untouched(make: Make, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """With sizes that stay; and soon after they have changed, also where another loader goes on."""
    work = Work(monkeypatch)
    source = TrainLoader(make(), batch_size=3, seed=SEED, num_workers=workers)
    assert work.of(source, 5) == 0
    source.set_micro_batches([2, 2])
    assert (work.of(source, 5) > 0) is (workers > 0)
    assert work.of(source, 5) == 0
    again = TrainLoader(make(), batch_size=4, seed=SEED, num_workers=workers)
    again.load_state_dict(source.state_dict())
    assert work.of(again, 4) == 0
    source.close()
    again.close()


def test_a_batch_alone_is_the_same_object() -> None:
    batch = chunk(0, 3)
    assert join(Slicer(iter([batch])).take(3)) is batch


def chunk(first: int, count: int) -> Batch:
    images = torch.arange(first, first + count).reshape(count, 1, 1, 1).expand(count, 3, 2, 2)
    names = [str(number) for number in range(first, first + count)]
    return {"lq": images, "gt": images, "lq_path": names, "gt_path": names, "fault": [""] * count}


def test_pieces_are_views() -> None:
    batch = chunk(0, 4)
    (head,), (tail,) = map(Slicer(iter([batch])).take, (1, 3))
    assert head["gt"].data_ptr() == batch["gt"].data_ptr()
    assert tail["gt"].untyped_storage().data_ptr() == batch["gt"].untyped_storage().data_ptr()
    assert tail["gt_path"] == ["1", "2", "3"]


def test_depths_are_joined_exactly(make: Make, folder: Path) -> None:
    import cv2

    deep = np.random.default_rng(0).integers(0, 65536, (24, 30, 3), dtype=np.uint16)
    cv2.imwrite(str(folder / "gt" / "3.png"), deep)
    source = TrainLoader(make(), batch_size=2, seed=SEED)
    start = source.next_batches()
    source.set_micro_batches([COUNT])
    assert same(rows(start + source.next_batches()), one_by_one(make, COUNT + 2))


def test_a_fault_stays_with_its_sample_and_is_counted_once(make: Make, folder: Path) -> None:
    (folder / "gt" / "2.png").write_bytes(b"no image")
    single = TrainLoader(make(), batch_size=1, seed=SEED)
    expected = [single.next_batches()[0]["fault"] for _ in range(COUNT)]
    assert sum(map(len, expected)) == 1
    source = TrainLoader(make(), batch_size=COUNT, seed=SEED, num_workers=1)
    source.start()
    source.set_micro_batches([1])
    for number, fault in enumerate(expected, 1):
        assert source.next_batches()[0]["fault"] == fault
        assert source.state_dict() == {"consumed": number, "faults": sum(map(len, expected[:number]))}
    source.close()


def test_a_batch_that_ends_the_run_is_not_cut() -> None:
    broken: Any = {"fault": ["", "", "some file"]}
    assert Slicer(iter([broken])).take(2) == [broken]


def test_nothing_readable_ends_the_run_also_in_pieces(make: Make, folder: Path) -> None:
    source = TrainLoader(make(), batch_size=4, seed=SEED, num_workers=1)
    for file in (folder / "lq").iterdir():
        file.write_bytes(b"")
    source.start()
    source.set_micro_batches([3])
    with pytest.raises(RunError, match="8 files in a row cannot be read, among them"):
        source.next_batches()
    source.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_are_counted_and_workers_change_at_their_end(make: Make, workers: int) -> None:
    source = TrainLoader(make(), batch_size=3, seed=SEED, num_workers=workers, persistent_workers=False)
    found, epochs = [], []
    for size in (3, 5, 1, 4, 9, 2):
        source.set_micro_batches([size])
        found += rows(source.next_batches())
        epochs.append(source.epoch)
    assert epochs == [0, 1, 1, 1, 3, 3]
    assert same(found, one_by_one(make, 24))
    source.close()


@pytest.mark.parametrize("wrong", [[], [2, 0], [-1]])
def test_sizes_that_are_none_are_refused(make: Make, wrong: list[int]) -> None:
    source = TrainLoader(make(), batch_size=3, seed=SEED)
    with pytest.raises(ValueError, match="accepted: at least one, each of at least 1"):
        source.set_micro_batches(wrong)
    assert source.micro_batches == (3,)
