"""A device in which a batch takes memory and time, and a manager that does what a batch-size automation asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from traiNNer.training_automations.base import (
    BatchFacts,
    Decision,
    MemoryFacts,
    OutOfMemoryFacts,
    RunFacts,
    SetBatchSize,
    StepFacts,
)
from traiNNer.training_automations.dynamicbatchsizeoptimizer_automation import DynamicBatchSizeOptimizer

EVERY = 10
"""Iterations between readings, and between the questions for decisions."""

MIB = 2**20

DRAWS = np.random.default_rng(0).uniform(-1, 1, 4001).tolist()


@dataclass
class Device:
    """A micro-batch of b takes (a + c b) (1 + noise); all of it is MiB."""

    a: float = 500
    c: float = 100
    total: float = 8000
    noise: float = 0.01
    others: Callable[[int], float] = lambda iteration: 200
    """What other programs take."""
    rate: Callable[[int, int], float] = lambda iteration, size: size / (0.02 + 0.01 * size)
    """Samples per second of micro-batches of a size."""
    seed: int = 0

    def need(self, iteration: int, size: int) -> float:
        """Of this process."""
        draw = DRAWS[(7919 * self.seed + 31 * iteration + size) % len(DRAWS)]
        return (self.a + self.c * size) * (1 + self.noise * draw)

    def fits(self, iteration: int, size: int) -> bool:
        return self.need(iteration, size) + self.others(iteration) <= self.total

    def largest(self, share: float, iteration: int = 0) -> int:
        """The largest size whose use stays within a share of the memory."""
        return int((share * self.total - self.others(iteration) - self.a) // self.c)


@dataclass
class Trainer:
    """Runs iterations on a device as the manager does; what it has seen goes on in its fields."""

    automation: DynamicBatchSizeOptimizer
    device: Device
    run: RunFacts = field(default_factory=lambda: RunFacts(total_iter=10**6, batch=BatchFacts(size=2)))
    most: int = 10**9
    """Counted decisions."""
    iteration: int = 0
    peak: float = 0.0
    micro_batches: tuple[int, ...] = ()
    sizes: list[int] = field(default_factory=list[int])
    """Of each iteration."""
    decisions: list[tuple[int, Decision]] = field(default_factory=list[tuple[int, Decision]])
    failures: list[int] = field(default_factory=list[int])
    """Iterations that did not fit."""

    def __post_init__(self) -> None:
        self.lines = self.automation.start(self.run)
        self.micro_batches = self.micro_batches or (self.run.batch.size,) * self.run.batch.accum_iter

    @property
    def size(self) -> int:
        return max(self.micro_batches)

    @property
    def texts(self) -> list[str]:
        return [decision.text for _, decision in self.decisions]

    def iterate(self, count: int) -> Trainer:
        for _ in range(count):
            self.iteration += 1
            self._step(self.iteration)
        return self

    def _step(self, iteration: int) -> None:
        device, automation, size = self.device, self.automation, self.size
        self.sizes.append(size)
        piece = size
        while not device.fits(iteration, piece) and piece > 1:
            piece = (piece + 1) // 2
        if piece < size:
            self.failures.append(iteration)
            automation.observe_out_of_memory(
                OutOfMemoryFacts(iteration=iteration, network="net_g", batch_size=size, fitted=piece)
            )
        samples = sum(self.micro_batches)
        seconds = samples / device.rate(iteration, size)
        self.peak = max(self.peak, device.need(iteration, piece))
        automation.observe_step(StepFacts(iteration=iteration, samples=samples, seconds=seconds))
        if iteration % EVERY == 0:
            automation.observe_memory(self._reading(iteration))
        if iteration % EVERY == 0 or piece < size:
            self._apply(iteration, automation.decide(iteration))

    def _reading(self, iteration: int) -> MemoryFacts:
        reserved, self.peak = round(self.peak * MIB), 0.0
        return MemoryFacts(
            iteration=iteration,
            batch_size=self.size,
            used=reserved + round(self.device.others(iteration) * MIB),
            reserved=reserved,
            total=round(self.device.total * MIB),
        )

    def _apply(self, iteration: int, decisions: list[Decision]) -> None:
        for decision in decisions:
            counted = sum(known.counts for _, known in self.decisions)
            if decision.counts and counted >= self.most:
                continue
            self.decisions.append((iteration, decision))
            if isinstance(decision, SetBatchSize):
                self.micro_batches = decision.micro_batches
                assert max(decision.micro_batches) == decision.batch_size
                self.automation.observe_phase(iteration, "batch size")


def run_of(batch_size: int = 2, **facts: Any) -> RunFacts:
    return RunFacts(total_iter=10**6, batch=BatchFacts(size=batch_size, **facts))
