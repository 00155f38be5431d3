"""An automation in a cage: its exceptions end it, never the run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from traiNNer.training_automations.base import Automation, Change, Decision, Note, RunFacts, SetBatchSize, SetSchedule
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.logging import get_logger
from traiNNer.utils.plain import plain

REMEMBERED = 20
"""Notes that are known to have been told."""

START = "start"
"""Done before there is a log."""


class Guarded:
    """An automation, whether it still works, and how many adjustments it has made.

    After an exception within `with guarded.doing("observe"):` the automation is off for the rest of the run; the
    exception is logged once with its traceback and goes no further.

    Args:
        automation: what is guarded.
        max_adjustments: counted decisions after which the last values hold; None for the automation's own limit, 0 to
            let it watch only.
    """

    def __init__(self, automation: Automation, max_adjustments: int | None = None) -> None:
        self.automation = automation
        self.name = automation.name
        self.failure = ""
        """What went wrong; empty while it works."""
        self.fallback_due = False
        """Whether it has failed and its fallback has not been decided yet."""
        self._limit = automation.max_adjustments if max_adjustments is None else max_adjustments
        self._adjustments = 0
        self._told: list[str] = []
        """What the last notes were about, since there were enough adjustments."""
        self._doing = ""
        self._has_schedule = False
        self._unsaid: Exception | None = None
        """What went wrong before there was a log."""
        self._resumed: list[str] = []
        """What a resumed run has that its option file does not say, until there is a log."""

    @property
    def works(self) -> bool:
        """Whether it has not failed so far."""
        return not self.failure

    def doing(self, what: str) -> Guarded:
        """A context in which exceptions end this automation; `what` is named in the log."""
        self._doing = what
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):  # an interrupt is none of an automation's
            return False
        if self._doing == START:
            self._unsaid = error
            return not isinstance(error, ConfigError)  # that is a mistake in the option file
        self.fail(f"{type(error).__name__} in {self._doing}: {error}", error)
        return True

    def mark(self, failure: str) -> None:
        """Take over that it has failed in another process, whose own log may be nowhere."""
        if self.works:
            self.fail(failure)

    def fail(self, failure: str, error: Exception | None = None) -> None:
        """Switch the automation off for the rest of the run, and say so."""
        if self.works:
            text = "Automation %s: failed and is off for the rest of the run, its fallback takes effect: %s"
            self.failure, self.fallback_due = failure, True
        else:
            text = "Automation %s: its fallback failed too, what it had changed stays: %s"
        get_logger().error(text, self.name, failure, exc_info=error)

    def start(self, run: RunFacts) -> list[str]:
        """What it has to say before the run begins.

        Raises:
            ConfigError: the options do not fit the run.
        """
        self._has_schedule = run.has_schedule
        lines: list[str] = []
        with self.doing(START):
            lines = self.automation.start(run)
        return [f"Automation {self.name}: {line}" for line in lines]

    def fallback(self) -> list[Decision]:
        """What takes effect in its place."""
        return self._permitted(self.automation.fallback())

    def holding(self, changed: list[Decision]) -> list[Decision]:
        """What a resumed run has to apply again: of an automation that has failed before, whatever it has changed."""
        if self.works:
            return self.automation.holding()
        return [] if self.fallback_due else self._permitted(changed)

    def _permitted(self, decisions: list[Decision]) -> list[Decision]:
        """A schedule of the option file is never replaced."""
        return [each for each in decisions if not (isinstance(each, SetSchedule) and self._has_schedule)]

    def goes_on(self, changes: Sequence[Change]) -> None:
        """Note what a resumed run changes again."""
        for each in changes:
            if isinstance(each.before, float | int) and each.after is not None and each.after != each.before:
                self._resumed.append(f"{each.what} {each.after:.4g} (by the option file {each.before:.4g})")

    def own_up(self) -> None:
        """Say what went wrong at the start, and with what a resumed run goes on, when there is a log."""
        for line in self._resumed:
            get_logger().info("Automation %s: goes on with %s", self.name, line)
        self._resumed = []
        error, self._unsaid = self._unsaid, None
        if error is not None and self.works:
            self.fail(f"{type(error).__name__} in {START}: {error}", error)

    def decide(self, iteration: int) -> list[Decision]:
        """Its decisions; those that count are dropped, and it is as if it had not made them, once there are enough."""
        exhausted = self._limit is not None and self._adjustments >= self._limit
        before = copy.deepcopy(self.automation.state_dict()) if exhausted else {}
        decisions = self.automation.decide(iteration)
        if not exhausted:
            return self._counted(decisions)
        if any(self._spent(decision) for decision in decisions):
            self.automation.load_state_dict(before)
            decisions = [each for each in decisions if isinstance(each, Note)]
        return [each for each in decisions if not isinstance(each, Note) or self._is_news(each)]

    def _is_news(self, note: Note) -> bool:
        """Whether a note was not told yet: with the decisions that are dropped an automation forgets what it told."""
        about = note.about or note.text
        known = about in self._told
        self._told = [*self._told, *([] if known else [about])][-REMEMBERED:]
        return not known

    def _spent(self, decision: Decision) -> bool:
        """Whether it is one too many; of one that only watches nothing happens but recoveries from out-of-memory."""
        return decision.counts or (self._limit == 0 and not isinstance(decision, Note | SetBatchSize))

    def _counted(self, decisions: list[Decision]) -> list[Decision]:
        self._adjustments += sum(decision.counts for decision in decisions)
        if self._limit is None or self._adjustments < self._limit or not any(each.counts for each in decisions):
            return decisions
        text = f"max_adjustments of {self._limit} reached, the last value holds"
        return [*decisions, Note(reason="max_adjustments", text=text, counts=False)]

    def state_dict(self) -> dict[str, Any]:
        """Adjustments made, whether it has failed, and its own state."""
        state: dict[str, Any] = {}
        if self.works:
            with self.doing("state_dict"):
                state = plain(self.automation.state_dict(), self.name)
        return {
            "adjustments": self._adjustments,
            "told": list(self._told),
            "failure": self.failure,
            "fallback_due": self.fallback_due,
            "state": state,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; one that had failed stays off."""
        self._adjustments, self._told = state_dict["adjustments"], list(state_dict["told"])
        if state_dict["failure"]:
            self.failure, self.fallback_due = state_dict["failure"], state_dict["fallback_due"]
            get_logger().warning("Automation %s: stays off, it has failed: %s", self.name, self.failure)
            return
        self.own_up()
        if not self.works:
            return
        with self.doing("load_state_dict"):
            self.automation.load_state_dict(state_dict["state"])
