"""What the tests of memory in real runs share: memory that is simulated or replayed, and what a run did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from traiNNer import automation_setup
from traiNNer.models.sr_model import SRModel
from traiNNer.training_automations.manager import AutomationManager
from traiNNer.utils.memory import MemoryReading

MIB = 2**20
TOTAL = 2000 * MIB

ERROR = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.50 GiB is free."
)


@dataclass
class Seen:
    """What the runs of a test did, as their models saw it."""

    sizes: list[list[int]] = field(default_factory=list[list[int]])
    """Images of each micro-batch, by iteration."""
    paths: list[str] = field(default_factory=list[str])
    """Images that were trained on."""
    passes: list[int] = field(default_factory=list[int])
    """Images of each pass of net_g."""
    models: list[SRModel] = field(default_factory=list[SRModel])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Notes what is fed."""
    found = Seen()
    feed = SRModel.feed_data

    def feed_data(self: SRModel, batches: Any) -> None:
        if self not in found.models:
            found.models.append(self)
            self.net_g.register_forward_hook(
                lambda module, inputs, output: found.passes.append(len(inputs[0])) if torch.is_grad_enabled() else None
            )
        found.sizes.append([len(batch["lq"]) for batch in batches])
        found.paths += [path for batch in batches for path in batch["lq_path"]]
        feed(self, batches)

    monkeypatch.setattr(SRModel, "feed_data", feed_data)
    return found


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> Callable[..., None]:
    """Sets how many images fit into memory, by iteration; above that net_g's passes fail."""

    def fits(most: Callable[[int], int]) -> None:
        feed = SRModel.feed_data

        def feed_data(self: SRModel, batches: Any) -> None:
            new = self not in seen.models
            feed(self, batches)
            if new:
                self.net_g.register_forward_hook(hook)

        def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            if torch.is_grad_enabled() and len(inputs[0]) > most(len(seen.sizes)):
                raise torch.OutOfMemoryError(ERROR)

        monkeypatch.setattr(SRModel, "feed_data", feed_data)

    return fits


@dataclass
class Record:
    """Readings of memory and durations by iteration; made once, then replayed."""

    readings: dict[int, MemoryReading] = field(default_factory=dict[int, MemoryReading])
    seconds: dict[int, float] = field(default_factory=dict[int, float])
    first: int = 0
    """Iterations done before the run that is replayed."""
    now: int = 0
    """Iteration that is being done."""
    make: Callable[[int], tuple[MemoryReading, float]] | None = None

    def read(self) -> MemoryReading:
        """The reading of this iteration."""
        if self.make is not None:
            self.readings[self.now] = self.make(self.now)[0]
        return self.readings[self.now] if self.now else MemoryReading(used=0, reserved=0, total=TOTAL)

    def restart(self) -> None:
        """Nothing: what is replayed has its peaks."""

    def describe(self) -> str:
        """What it is."""
        return "recorded memory"

    def clock(self) -> Iterator[float]:
        """Two readings an iteration: before, and after."""
        self.now = self.first
        while True:
            self.now += 1
            yield 0.0
            if self.make is not None:
                self.seconds[self.now] = self.make(self.now)[1]
            yield self.seconds[self.now]


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Callable[[Record, int], None]:
    """Gives the next run the memory and the clock of a record, from an iteration on."""

    def replay(record: Record, first: int = 0) -> None:
        record.first, record.now = first, 0
        ticks = record.clock()
        clocked = partial(AutomationManager, clock=lambda: next(ticks))
        monkeypatch.setattr(automation_setup, "memory_reader", lambda device: record)
        monkeypatch.setattr(automation_setup, "AutomationManager", clocked)

    return replay


def simulated(seen: Seen, *, most: Callable[[int], float] = lambda iteration: 0.0) -> Record:
    """A device of 2,000 MiB: this process has 200 + 100 an image, others what `most` says; larger batches are faster.

    Readings and times vary by up to 2 %, each iteration in its own way.
    """

    def make(iteration: int) -> tuple[MemoryReading, float]:
        size = max(seen.sizes[-1]) if seen.sizes else 0
        noise = 1 + 0.02 * ((iteration * 7919) % 101) / 101
        reserved = int((200 + 100 * size) * MIB * noise)
        used = reserved + int(most(iteration) * MIB)
        return MemoryReading(used=min(used, TOTAL), reserved=reserved, total=TOTAL), (0.05 + 0.01 * size) * noise

    return Record(make=make)
