"""Runs the automations: hands them what they observe, applies what they decide, and lets none of them end the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from traiNNer.training_automations.base import (
    Change,
    Controls,
    Decision,
    MemoryFacts,
    Note,
    ObservesGradients,
    ObservesMemory,
    Occasion,
    OutOfMemoryFacts,
    Phase,
    RunFacts,
    SetBatchSize,
    StopTraining,
    ValidationFacts,
    from_plain,
    to_plain,
)
from traiNNer.training_automations.guard import Guarded
from traiNNer.training_automations.journal import Journal
from traiNNer.training_automations.observations import Observations, merged
from traiNNer.types import StepReport
from traiNNer.utils import dist
from traiNNer.utils.logging import get_logger
from traiNNer.utils.memory import MemoryReader, MemoryReading
from traiNNer.utils.plain import plain

TICK = 10
"""Iterations between two times that automations are told and asked, whatever is logged, validated or saved."""


class ReadsValues(Protocol):
    """Whoever holds the steps' values on the device."""

    def read(self) -> None:
        """Read what is pending, and pass it on."""
        ...


@dataclass
class _Outcome:
    """What rank 0 says, for all processes to do."""

    decisions: list[tuple[str, Decision]] = field(default_factory=list[tuple[str, Decision]])
    """In order, each with the key of its automation."""
    failures: dict[str, str] = field(default_factory=dict[str, str])
    plan: frozenset[int] = frozenset()
    """Iterations at which gradients are sampled until the next time."""


class AutomationManager:
    """The observer of a run that its automations share, see `StepObserver`.

    Rank 0 decides, on values of all processes; every process applies the same decisions at the same iteration. A
    decision is about the next iteration.

    Args:
        automations: by key, in the order in which they are told and asked.
        controls: what decisions act upon.
        journal: where they are written down.
        run: facts of the run; its automations have been started with them.
        values: holds the steps' values until they are read.
        memory: reads the device's memory; needed by automations that watch it.
        clock: seconds, from any origin.
        coupled: networks and losses in which images of a batch influence each other: in pieces they give others.
    """

    def __init__(
        self,
        automations: Mapping[str, Guarded],
        *,
        controls: Controls,
        journal: Journal,
        run: RunFacts,
        values: ReadsValues,
        memory: MemoryReader | None = None,
        clock: Callable[[], float] = time.perf_counter,
        coupled: Sequence[str] = (),
    ) -> None:
        self.observations = Observations(run.losses)
        self.stopped = ""
        """Why the run is to end after this iteration; empty while it goes on."""
        self._automations = dict(automations)
        self._controls, self._journal, self._values = controls, journal, values
        self._memory, self._clock, self._coupled = memory, clock, coupled
        self._batch_size = run.batch.size
        self._failures: list[OutOfMemoryFacts] = []
        self._changed: dict[str, dict[str, dict[str, Any]]] = {}
        """By automation, the last decision about each thing that it has changed: holds also when it has failed."""
        self._began, self._was_stopped = 0.0, False
        self._plan = self._sampling(run.first_iteration)

    # what the model and the trainer tell

    def before_iteration(self) -> None:
        """An iteration begins, its data still to come."""
        self._began = self._clock()

    def before_update(self, network: str, gradient_norm: Tensor, current_iter: int) -> None:
        """Norms are read with the other values of a step."""

    def samples_gradients(self, current_iter: int) -> bool:
        """Whether an iteration's losses are to be told apart by their gradients."""
        return current_iter in self._plan

    def on_out_of_memory(self, network: str, batch_size: int, fitted: int, current_iter: int) -> None:
        """A step was run again in pieces."""
        text = "iteration %s: out of memory in the step of %s with batches of %d; it was run again in pieces of %d"
        get_logger().warning(text, f"{current_iter:,}", network, batch_size, fitted)
        if self._coupled:
            text = "that step is not the same as without pieces: images of a batch influence each other in %s"
            get_logger().warning(text, ", ".join(self._coupled))
        failure = OutOfMemoryFacts(iteration=current_iter, network=network, batch_size=batch_size, fitted=fitted)
        self._failures.append(failure)

    def after_step(self, report: StepReport) -> None:
        """A step is done; its values follow."""
        self.observations.report(report)

    def phase(self, iteration: int, what: Phase) -> None:
        """Something changes with an iteration."""
        self.observations.phase(iteration, what)

    def after_iteration(self, iteration: int) -> None:
        """An iteration is done, before anything is logged, validated or saved."""
        due = iteration % TICK == 0 or bool(self._failures)
        if due:
            self._values.read()  # host-device synchronization, in place of the monitor's own
        self.observations.took(self._clock() - self._began)
        if due:
            self._deliver()
            self._tell_memory(iteration, self._batch_size)
            self._decide(iteration, "interval")

    def after_validation(self, metrics: Mapping[str, float], iteration: int) -> None:
        """A validation is done."""
        self._values.read()
        self._deliver()
        facts = ValidationFacts(iteration=iteration, metrics=dict(metrics))
        for guarded in self._deciding():
            with guarded.doing("observe_validation"):
                guarded.automation.observe_validation(facts)
        self._decide(iteration, "validation")

    def after_pause(self) -> None:
        """Training goes on after a validation, a save or pictures: what those took says nothing about batches."""
        if self._memory is not None:
            self._memory.restart()

    # what automations are told

    def _deciding(self) -> list[Guarded]:
        """The automations of this process that still work; only rank 0 has any."""
        return [each for each in self._automations.values() if each.works] if dist.is_main() else []

    def _deliver(self) -> None:
        parts = dist.all_gather_objects(self.observations.take())
        if not dist.is_main():
            return
        steps = merged([part[0] for part in parts])
        phases = list(parts[0][1])
        for step in steps:
            while phases and phases[0][0] <= step.iteration:
                self._tell_phase(*phases.pop(0))
            for guarded in self._deciding():
                with guarded.doing("observe_step"):
                    guarded.automation.observe_step(step)
        for iteration, what in phases:  # of an iteration that is still to come
            self.observations.phase(iteration, what)

    def _tell_phase(self, iteration: int, what: Phase) -> None:
        for guarded in self._deciding():
            with guarded.doing("observe_phase"):
                guarded.automation.observe_phase(iteration, what)

    def _tell_memory(self, iteration: int, batch_size: int) -> None:
        failures, self._failures = self._failures, []
        readings = [] if self._memory is None else self._readings(self._memory)
        if not readings:
            return
        fullest = max(readings, key=lambda reading: reading.used / reading.total)
        facts = MemoryFacts(
            iteration=iteration,
            batch_size=batch_size,
            used=fullest.used,
            reserved=max(reading.reserved for reading in readings),
            total=fullest.total,
        )
        for guarded in self._deciding():
            if isinstance(guarded.automation, ObservesMemory):
                with guarded.doing("observe_memory"):
                    for failure in failures:
                        guarded.automation.observe_out_of_memory(failure)
                    guarded.automation.observe_memory(facts)

    def _readings(self, memory: MemoryReader) -> list[MemoryReading]:
        """Those of all processes; none once an automation that watches memory has failed in one of them."""
        reading = None
        for guarded in self._automations.values():
            if guarded.works and isinstance(guarded.automation, ObservesMemory):
                with guarded.doing("reading the memory"):
                    reading = memory.read()
        parts: list[MemoryReading | None] = dist.all_gather_objects(reading)
        if None in parts:
            self._agree()
        return [] if None in parts else [part for part in parts if part is not None]

    # what they decide

    def begin(self, iteration: int) -> None:
        """The run begins, or goes on, after so many iterations.

        A run that was stopped asks again whether to stop: the options may be others now.
        """
        self._journal.resume(iteration)
        for guarded in self._automations.values():
            guarded.own_up()
        self._agree()
        self._plan = dist.broadcast_object(self._plan)
        if iteration == 0 and self._memory is not None:
            self._memory.restart()
            self._tell_memory(0, 0)
        if self._was_stopped or any(each.fallback_due for each in self._automations.values()):
            self._decide(iteration, "validation")

    def _decide(self, iteration: int, occasion: Occasion) -> None:
        outcome = self._ask(iteration, occasion) if dist.is_main() else None
        outcome = dist.broadcast_object(outcome)
        self._carry_out(outcome, iteration)
        if outcome.decisions:
            self._agree()
        if any(each.fallback_due for each in self._automations.values()):  # in all processes alike by now
            self._fall_back(dist.broadcast_object(self._ask_fallbacks() if dist.is_main() else None), iteration)

    def _ask(self, iteration: int, occasion: Occasion) -> _Outcome:
        outcome = _Outcome()
        for key, guarded in self._automations.items():
            if guarded.works and guarded.automation.asked == occasion:
                with guarded.doing("decide"):
                    outcome.decisions += [(key, decision) for decision in guarded.decide(iteration)]
        outcome.plan = self._sampling(iteration + 1) if occasion == "interval" else self._plan
        outcome.failures = {key: each.failure for key, each in self._automations.items() if each.fallback_due}
        return outcome

    def _carry_out(self, outcome: _Outcome, iteration: int) -> None:
        for key, failure in outcome.failures.items():
            self._automations[key].mark(failure)
        self._plan = outcome.plan
        for key, decision in outcome.decisions:
            if self._automations[key].works:
                self._execute(key, decision, iteration)

    def _agree(self) -> None:
        """What has failed in one process has failed in all."""
        failures = {key: each.failure for key, each in self._automations.items() if each.fallback_due}
        for part in dist.all_gather_objects(failures):
            for key, failure in part.items():
                self._automations[key].mark(failure)

    def _execute(self, key: str, decision: Decision, iteration: int) -> None:
        guarded = self._automations[key]
        with guarded.doing("apply"):
            changes = self._apply(decision)
            if changes and not isinstance(decision, StopTraining):
                target = f"{type(decision).__name__}/{getattr(decision, 'network', getattr(decision, 'label', ''))}"
                held = replace(decision, text="", evidence={})
                self._changed.setdefault(key, {})[target] = plain(to_plain(held), guarded.name)
            if changes or isinstance(decision, Note):  # otherwise what it is about is not in this run, or no longer
                self._journal.write(guarded.name, decision, changes, iteration)
            if isinstance(decision, SetBatchSize):
                self.observations.phase(iteration + 1, "batch size")

    def _apply(self, decision: Decision) -> list[Change]:
        changes = self._controls.apply(decision)
        if isinstance(decision, SetBatchSize):
            self._batch_size = decision.batch_size
            if self._memory is not None:
                self._memory.restart()
        if isinstance(decision, StopTraining):
            self.stopped = decision.text
        return changes

    def _ask_fallbacks(self) -> dict[str, list[Decision]]:
        fallbacks: dict[str, list[Decision]] = {}
        for key, guarded in self._automations.items():
            if guarded.fallback_due:
                with guarded.doing("fallback"):
                    fallbacks[key] = guarded.fallback()
        return fallbacks

    def _fall_back(self, fallbacks: Mapping[str, list[Decision]], iteration: int) -> None:
        for key, decisions in fallbacks.items():
            for decision in decisions:
                self._execute(key, decision, iteration)
        for guarded in self._automations.values():
            guarded.fallback_due = False

    def _sampling(self, first: int) -> frozenset[int]:
        """Iterations of the next interval at which an automation wants gradients."""
        plan: set[int] = set()
        for guarded in self._deciding():
            if isinstance(guarded.automation, ObservesGradients):
                with guarded.doing("samples_gradients"):
                    plan |= {each for each in range(first, first + TICK) if guarded.automation.samples_gradients(each)}
        return frozenset(plan)

    # what a checkpoint has of it

    def state_dict(self) -> dict[str, Any]:
        """Each automation's state, and what holds."""
        return {
            "automations": {key: each.state_dict() for key, each in self._automations.items()},
            "changed": {key: dict(decisions) for key, decisions in self._changed.items()},
            "plan": sorted(self._plan),
            "stopped": self.stopped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint: what automations had changed is changed again. A new one begins afresh."""
        self._plan, self._was_stopped = frozenset(state_dict["plan"]), bool(state_dict["stopped"])
        for key in self._automations.keys() & state_dict["automations"].keys():
            guarded = self._automations[key]
            guarded.load_state_dict(state_dict["automations"][key])
            changed = state_dict["changed"].get(key, {})
            self._changed |= {key: dict(changed)} if changed else {}
            with guarded.doing("load_state_dict"):
                for decision in guarded.holding([from_plain(each) for each in changed.values()]):
                    guarded.goes_on(self._apply(decision))
