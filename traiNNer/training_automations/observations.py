"""What a process has seen since the automations were last told: steps, phases and failures, in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from traiNNer.training_automations.base import Phase, StepFacts
from traiNNer.types import StepReport

GRADIENT = "gradient/"
"""Before the labels of sampled gradients, among a step's values."""

NORM = "grad_norm/"
"""Before the names of networks."""


class Observations:
    """Steps whose values have been read, and phases, until they are taken.

    Values are read whenever something needs them, a log line or a checkpoint, say; automations get them at fixed
    iterations. What has been read early waits here, and is part of the checkpoint.

    Args:
        labels: of the losses.
    """

    def __init__(self, labels: Collection[str]) -> None:
        self._labels = sorted(labels, key=len, reverse=True)
        self._reports: dict[int, StepReport] = {}
        self._steps: list[dict[str, Any]] = []
        self._phases: list[tuple[int, Phase]] = []
        self._clock = [0.0, 0]

    def report(self, report: StepReport) -> None:
        """Take what is known of a step on the host; its values follow."""
        self._reports[report.iteration] = report

    def read(self, iteration: int, values: Mapping[str, float]) -> None:
        """Take a step's values."""
        report = self._reports.pop(iteration, None)
        if report is None:
            return
        self._steps.append(
            {
                "iteration": iteration,
                "losses": self._losses(values),
                "weights": report.weights,
                "scheduled_weights": report.scheduled_weights,
                "scheduled_rate": report.scheduled_rate,
                "norms": _beginning(NORM, values),
                "gradients": _beginning(GRADIENT, values),
                "applied": bool(values["finite"]),
                "samples": report.samples,
            }
        )

    def _losses(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each loss's value, that of one with named components their sum."""
        losses: dict[str, float] = {}
        for name, value in values.items():
            label = next((each for each in self._labels if name == each or name.startswith(f"{each}_")), None)
            if label is not None and (name == label or label not in values):
                losses[label] = losses.get(label, 0.0) + value
        return losses

    def phase(self, iteration: int, what: Phase) -> None:
        """Note that something changes with an iteration."""
        self._phases.append((iteration, what))

    def took(self, seconds: float) -> None:
        """Note how long a step took."""
        self._clock = [self._clock[0] + seconds, self._clock[1] + 1]

    def take(self) -> tuple[list[dict[str, Any]], list[tuple[int, Phase]]]:
        """All there is, once; every step has the mean time: on a device the host runs ahead of the work."""
        seconds = self._clock[0] / self._clock[1] if self._clock[1] else 0.0
        steps, phases = [{**step, "seconds": seconds} for step in self._steps], self._phases
        self._steps, self._phases, self._clock = [], [], [0.0, 0]
        return steps, phases

    def state_dict(self) -> dict[str, Any]:
        """What waits; whoever asks has had the values read."""
        return {"steps": list(self._steps), "phases": [list(each) for each in self._phases], "clock": list(self._clock)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what waited."""
        self._steps = [dict(step) for step in state_dict["steps"]]
        self._phases = [(iteration, what) for iteration, what in state_dict["phases"]]
        self._clock = list(state_dict["clock"])


def _beginning(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def merged(processes: Sequence[Sequence[dict[str, Any]]]) -> list[StepFacts]:
    """The same steps of all processes as one: the mean of losses and gradients, the time of the slowest."""
    steps: list[StepFacts] = []
    known = [{step["iteration"]: step for step in part} for part in processes]
    for first in processes[0]:
        # a process that a resumed run has more than the saved one lacks the steps that waited
        each = [part[first["iteration"]] for part in known if first["iteration"] in part]
        means = {key: _means([step[key] for step in each]) for key in ("losses", "gradients")}
        facts: dict[str, Any] = {**each[0], **means, "seconds": max(step["seconds"] for step in each)}
        steps.append(StepFacts(**facts))
    return steps


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    labels = dict.fromkeys(label for part in parts for label in part)
    values = {label: [part[label] for part in parts if label in part] for label in labels}
    return {label: sum(each) / len(each) for label, each in values.items()}
