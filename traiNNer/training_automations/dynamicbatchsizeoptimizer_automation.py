"""Batch size: as large as memory allows and throughput rewards."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field

from traiNNer.training_automations.base import (
    Decision,
    Evidence,
    MemoryFacts,
    Note,
    OutOfMemoryFacts,
    Phase,
    RunFacts,
    SetBatchSize,
    StepFacts,
    ValidationFacts,
)
from traiNNer.training_automations.batch_memory import BatchMemory, BatchState, doubled
from traiNNer.utils.balanced import balanced
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import AUTOMATIONS

LARGEST = 32
"""A batch does not grow beyond that unless the options say so."""

GROWTH = 1.5
"""Largest factor of one adjustment upwards; one size more is always allowed."""

STEPS = 20
"""Steps whose median is the throughput at a size."""

SETTLE = 3
"""Steps after a change that are not measured: libraries try kernels then."""

KEPT, DOUBTFUL = 0.97, 0.9
"""Share of the throughput before that a larger batch has to reach; between the two it is measured a second time, since
medians of that many steps vary by some percent."""

SPILLED, SPILL_STEPS = 0.5, 5
"""Below that share, over so many steps, a batch does not compute but swap."""

PAUSE, SLOW, FAILED = 3, 10, 20
"""Times `adjustment_frequency`: without growth after a shrink, and before a size that was too slow or did not fit is
tried again. Each doubles every time."""

EXPONENTS = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}


@AUTOMATIONS.register("DynamicBatchSizeOptimizer")
class DynamicBatchSizeOptimizer:
    """The largest batch b with a + c b + others <= (target_vram_usage - safety_margin) total, fitted to readings.

    a + c b is what this process held at its most with the sizes that it has seen. Every `adjustment_frequency`
    iterations the batch grows, by half at most, and stays so if samples per second (median of 20 steps) reach 97 % of
    what they were; a size that is too slow, or whose samples take twice as long because the driver moves memory to the
    system's, is left again. It shrinks when the device's use, other programs included, exceeds `target_vram_usage`,
    and after a step that did not fit; then it does not grow for 3 `adjustment_frequency`, doubled by each failure.

    Shapes: none. Range: min_batch_size <= b <= max_batch_size, and no more than the training set has.
    Reference: ours. McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, on what a batch is worth;
    Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022, on `lr_scaling`.

    ```yaml
    training_automations:
      DynamicBatchSizeOptimizer:
        target_vram_usage: 0.85
        max_batch_size: 32
    ```

    Raises:
        ConfigError: bounds that contradict each other.
    """

    name = "DynamicBatchSizeOptimizer"
    asked = "interval"
    max_adjustments = 20

    def __init__(
        self,
        *,
        target_vram_usage: Annotated[
            float, Field(gt=0, le=1, description="use of the device's memory above which the batch shrinks, share")
        ] = 0.85,
        safety_margin: Annotated[
            float,
            Field(ge=0, lt=1, description="what a growth leaves free below target_vram_usage, share of the memory"),
        ] = 0.05,
        adjustment_frequency: Annotated[int, Field(ge=1, description="iterations between growths")] = 100,
        min_batch_size: Annotated[int, Field(ge=1, description="smallest micro-batch of one process, images")] = 1,
        max_batch_size: Annotated[
            int | None,
            Field(ge=1, description="largest micro-batch of one process, images; null for 32 or the configured size"),
        ] = None,
        vram_history_size: Annotated[
            int, Field(ge=2, description="readings of memory that are remembered; of each size the largest counts")
        ] = 50,
        effective_batch: Annotated[
            Literal["follow", "keep"],
            Field(description="whether a step sees more images with a larger micro-batch, or fewer micro-batches"),
        ] = "follow",
        lr_scaling: Annotated[
            Literal["none", "sqrt", "linear"],
            Field(description="what the learning rate is multiplied by, of effective batch / configured one"),
        ] = "none",
        fallback_batch_size: Annotated[
            int | None,
            Field(ge=1, description="micro-batch when the automation has failed, images; null for the configured size"),
        ] = None,
    ) -> None:
        if safety_margin >= target_vram_usage:
            message = f"found {safety_margin}; accepted: less than target_vram_usage, {target_vram_usage}"
            raise ConfigError(Problem(key="safety_margin", message=message))
        if max_batch_size is not None and max_batch_size < min_batch_size:
            message = f"found {max_batch_size}; accepted: min_batch_size, {min_batch_size}, or more"
            raise ConfigError(Problem(key="max_batch_size", message=message))
        self._target, self._limit = target_vram_usage, target_vram_usage - safety_margin
        self._every, self._bounds = adjustment_frequency, (min_batch_size, max_batch_size)
        self._keep, self._exponent = effective_batch == "keep", EXPONENTS[lr_scaling]
        self._fallback = fallback_batch_size
        self._run, self._configured = RunFacts(total_iter=0), 1
        self._sizes: list[int] = [1]
        """Those that may be, in order."""
        self._memory = BatchMemory(vram_history_size)
        self._state = BatchState()

    def start(self, run: RunFacts) -> list[str]:
        """What is watched and between which sizes; or why nothing can be done."""
        self._run, self._sizes = run, self._allowed(run)
        self._configured = max(self._split(run.batch.size))
        self._state = BatchState(size=self._configured, since=run.first_iteration - 1)
        if run.batch.fixed:
            return [f"the batch size stays at {run.batch.size}: {run.batch.fixed}"]
        memory = f" of {run.batch.total_memory / 2**30:.1f} GiB" if run.batch.total_memory else ""
        each = f" ({run.batch.accum_iter} of them make a step)" if run.batch.accum_iter > 1 and not self._keep else ""
        step = f", in steps of {run.batch.size * run.batch.accum_iter} images" if self._keep else ""
        now = f", now {self._state.size}" if run.first_iteration == 1 else ""  # a checkpoint may have another
        return [
            f"watches memory{memory}: batch sizes from {self._sizes[0]} to {self._sizes[-1]}{each}{step}{now}; "
            f"larger while use stays below {self._limit:.0%}, smaller above {self._target:.0%}"
        ]

    def _allowed(self, run: RunFacts) -> list[int]:
        lowest, highest = self._bounds
        highest = max(LARGEST, run.batch.size) if highest is None else highest
        if self._keep:  # so many micro-batches of almost the same size: between those sizes nothing changes
            whole = run.batch.size * run.batch.accum_iter
            possible = sorted({size for count in range(1, whole + 1) if (size := -(-whole // count)) <= highest})
            return [size for size in possible if size >= lowest] or possible[-1:]
        if run.batch.images:
            highest = min(highest, max(run.batch.images // run.batch.accum_iter, run.batch.size))
        return list(range(lowest, max(lowest, highest) + 1))

    def _split(self, size: int) -> tuple[int, ...]:
        """The micro-batches of an iteration, of at most a size."""
        if not self._keep:
            return (size,) * self._run.batch.accum_iter
        return tuple(balanced(self._run.batch.size * self._run.batch.accum_iter, size))

    def observe_phase(self, iteration: int, what: Phase) -> None:
        """A loss that began or ended changes what a sample takes; another batch size does not."""
        if what == "losses":
            self._memory.forget()
            self._state.trial, self._state.speeds = [], []

    def observe_step(self, step: StepFacts) -> None:
        """Take the throughput of an iteration."""
        state = self._state
        if state.settle:
            state.settle -= 1
        elif step.seconds > 0 and step.samples > 0:
            state.speeds = [*state.speeds, step.samples / step.seconds][-STEPS:]

    def observe_validation(self, validation: ValidationFacts) -> None:
        """Validations say nothing about batches."""

    def observe_memory(self, memory: MemoryFacts) -> None:
        """Take a reading, and see from it whether what was asked for has come."""
        state = self._state
        if memory.batch_size == 0:
            self._memory.floor = memory.reserved
            return
        if state.failure:  # it knows of the batch that did not fit and of its pieces
            return
        if memory.batch_size != (state.asked or state.size):  # somebody else's doing, as of other bounds on a resume
            state.trial = []
            if not state.asked:
                self._expect(memory.iteration, 0)
        state.asked, state.size = 0, memory.batch_size
        if state.skip:
            state.skip -= 1
            return
        self._memory.take(memory)
        state.blind, state.proven = False, max(state.proven, memory.batch_size)

    def observe_out_of_memory(self, failure: OutOfMemoryFacts) -> None:
        """Note the smallest batch that failed in this iteration."""
        known = self._state.failure
        self._state.failure = min(known or [failure.batch_size, failure.fitted], [failure.batch_size, failure.fitted])

    def decide(self, iteration: int) -> list[Decision]:
        """Another size, if memory or throughput say so."""
        if self._run.batch.fixed:
            self._state.failure = []
            return []
        if self._state.failure:
            found = self._recover(iteration)
        elif self._state.asked:
            found = None
        else:
            found = (
                self._within(iteration) or self._shrink(iteration) or self._judge(iteration) or self._grow(iteration)
            )
        return [] if found is None else [found]

    def _recover(self, iteration: int) -> Decision | None:
        """The pieces' size; a larger one that is known to fit, where the failing one had never run before."""
        state = self._state
        (failing, fitted), state.failure, state.trial = state.failure, [], []
        again = failing == state.ceiling
        state.failures += 1
        self._close(iteration, failing, FAILED, state.failures)
        if failing <= state.proven:
            state.proven = fitted
        below = [size for size in self._sizes if size < failing]
        if not below:
            return None if again else self._helpless(failing)
        known = {} if state.blind or failing in self._memory.largest else self._memory.largest
        wanted = max([fitted, *(size for size in known if self._memory.share(size, size) <= self._limit)])
        size = max([size for size in below if size <= wanted], default=below[0])
        state.blind = True
        evidence: Evidence = {"failed": failing, "fitted": fitted, "failures": state.failures}
        return self._ask(iteration, failing, size, "out of memory", evidence, counts=False)

    def _helpless(self, failing: int) -> Decision:
        text = f"batch size {failing} does not fit and is the smallest allowed: its steps run in pieces, slowly"
        return Note(reason="out of memory", text=text, counts=False)

    def _within(self, iteration: int) -> Decision | None:
        """Into the bounds, which may be others than when the size was chosen."""
        size, lowest, highest = self._state.size, self._sizes[0], self._sizes[-1]
        if size > highest:
            return self._ask(iteration, size, highest, "max_batch_size", {}, counts=False)
        return self._ask(iteration, size, lowest, "min_batch_size", {}, counts=False) if size < lowest else None

    def _shrink(self, iteration: int) -> Decision | None:
        state, memory = self._state, self._memory
        below = [size for size in self._sizes if size < state.size]
        if not below or not memory.over(self._target, 2 if self._every >= STEPS else 1):
            return None
        size = max([size for size in below if memory.share(size, state.size) <= self._limit], default=below[0])
        state.pause = max(state.pause, iteration + PAUSE * self._every * doubled(state.failures))
        evidence = self._evidence(size) | {"use": memory.uses[-1] / memory.total}
        return self._ask(iteration, state.size, size, "high VRAM usage", evidence)

    def _judge(self, iteration: int) -> Decision | None:
        """Whether the last growth stays."""
        state = self._state
        if not state.trial:
            return None
        size, before = int(state.trial[0]), state.trial[1]
        if not size:
            return self._acquit(iteration, before)
        share = statistics.median(state.speeds) / before if before and state.speeds else 1.0
        if share < SPILLED and len(state.speeds) >= SPILL_STEPS:
            state.failures += 1
            self._close(iteration, state.size, FAILED, state.failures)
            reason = "GPU memory spilled into system memory"
        elif before and len(state.speeds) < self._enough:
            return None
        elif DOUBTFUL < share < KEPT and len(state.trial) == 2:
            state.trial, state.speeds = [*state.trial, share], []
            return None
        elif share < KEPT:
            state.refusals += 1
            self._close(iteration, state.size, SLOW, state.refusals)
            reason = "lower throughput"
        else:
            state.trial, state.refusals = [], 0
            return None
        slow = [0.0, share * before] if reason == "lower throughput" else []
        decision = self._ask(iteration, state.size, size, reason, {"throughput": share}, counts=False)
        state.trial = slow
        return decision

    def _acquit(self, iteration: int, speed: float) -> None:
        """Where the size before is no faster now either, it was the machine, and the larger one may be tried again."""
        state = self._state
        if len(state.speeds) < self._enough:
            return
        if speed >= KEPT * statistics.median(state.speeds):
            state.ceiling, state.pause, state.refusals = 0, iteration, state.refusals - 1
        state.trial = []

    @property
    def _enough(self) -> int:
        """Steps that make a throughput."""
        return max(min(STEPS, self._every - SETTLE), SPILL_STEPS)

    def _grow(self, iteration: int) -> Decision | None:
        state, memory = self._state, self._memory
        if iteration >= state.lifted:
            state.ceiling = 0
        above = [size for size in self._sizes if size > state.size and (not state.ceiling or size < state.ceiling)]
        waits = iteration < max(state.pause, state.since + self._every) or state.trial
        if waits or not above or state.size not in memory.largest:
            return None
        middle = (state.size + state.ceiling) / 2 if state.ceiling else math.inf  # between what runs and what does not
        near = [size for size in above if size <= max(min(GROWTH * state.size, middle), above[0])]
        size = max([size for size in near if memory.share(size, state.size) <= self._limit], default=0)
        if not size and self._may_probe(above[0]):
            size = above[0]
        if not size:
            return None
        speed = statistics.median(state.speeds) if len(state.speeds) >= self._enough else 0.0
        present, evidence = state.size, self._evidence(size)
        decision = self._ask(iteration, present, size, "free VRAM", evidence)
        state.trial = [present, speed]
        return decision

    def _may_probe(self, size: int) -> bool:
        """From one size alone too much is predicted: the next one may be tried where even that is there."""
        memory, present = self._memory, self._state.size
        if len(memory.largest) > 1 or memory.share(present, present) > self._limit:
            return False
        if memory.prior is not None:
            return memory.share(size, present, slope=memory.prior) <= self._limit
        return memory.share(size, present) <= 1 - (self._target - self._limit)

    def _evidence(self, size: int) -> dict[str, float | int | str]:
        memory = self._memory
        return {
            "predicted": memory.share(size, self._state.size),
            "others": memory.others[-1] / memory.total,
            "readings": len(memory.readings),
        }

    def _close(self, iteration: int, size: int, wait: int, times: int) -> None:
        """Try no such size for a while, and none at all for a shorter one."""
        state, factor = self._state, doubled(times - 1)
        if not state.ceiling or size <= state.ceiling or iteration >= state.lifted:
            state.ceiling, state.lifted = size, iteration + wait * self._every * factor
        state.pause = max(state.pause, iteration + PAUSE * self._every * doubled(times))

    def _ask(
        self, iteration: int, present: int, size: int, reason: str, evidence: Evidence, *, counts: bool = True
    ) -> SetBatchSize:
        self._expect(iteration, size)
        self._state.trial = []
        text = f"Batch size adjusted from {present} to {size} due to {reason}"
        return self._decision(size, reason, text, evidence, counts=counts)

    def _expect(self, iteration: int, size: int) -> None:
        """Begin to measure anew; a decision may be dropped, so that a reading has to say whether the size has come."""
        state = self._state
        state.asked, state.since, state.skip, state.settle, state.speeds = size, iteration, 1, SETTLE, []
        self._memory.uses = []

    def _decision(self, size: int, reason: str, text: str, evidence: Evidence, *, counts: bool) -> SetBatchSize:
        micro_batches = self._split(size)
        factor = sum(micro_batches) / (self._run.batch.size * self._run.batch.accum_iter)
        return SetBatchSize(
            reason=reason,
            text=text,
            evidence=evidence,
            counts=counts,
            batch_size=max(micro_batches),
            micro_batches=micro_batches,
            rate_factor=factor**self._exponent,
        )

    def holding(self) -> list[Decision]:
        """The size, where it is not the option file's."""
        size = min(max(self._state.asked or self._state.size, self._sizes[0]), self._sizes[-1])
        if self._run.batch.fixed or size == self._configured:
            return []
        return [self._decision(size, "resume", "", {}, counts=False)]

    def fallback(self) -> list[Decision]:
        """The configured size or the option's, if as large a one has run without failing."""
        if self._run.batch.fixed:
            return []
        size = self._fallback or self._run.batch.size
        size = min(size, self._state.proven or size)
        return [self._decision(size, "fallback", f"Batch size fixed at {size}", {}, counts=False)]

    def state_dict(self) -> dict[str, Any]:
        """What was seen and done."""
        return {"state": asdict(self._state), "memory": self._memory.state_dict(), "configured": self._configured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; a size outside the present bounds is brought into them by the next decision."""
        self._state = BatchState(**state_dict["state"])
        self._state.follow(state_dict["configured"], self._configured)
        self._memory.load_state_dict(state_dict["memory"])
