"""Loss weights that keep each loss's share of the gradient, whatever the scale of its values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from traiNNer.training_automations.base import (
    Decision,
    LossFacts,
    Note,
    Phase,
    RunFacts,
    SetLossWeight,
    StepFacts,
    ValidationFacts,
)
from traiNNer.training_automations.calibration import calibrate
from traiNNer.training_automations.loss_share import ENOUGH, LossShare
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import AUTOMATIONS

Mode: TypeAlias = Literal["continuous", "calibrate", "off"]

STEP = math.log(1.1)
"""Largest change of a weight's logarithm in one adjustment."""

LATITUDE, DEAD_BAND = math.log(1.10), math.log(1.05)
"""A share off by more than the first is corrected until it is off by less than the second: noise alone moves little."""

SMALL = math.log(1.02)
SMALL_IN_A_ROW = 5
"""So many adjustments below that end the mode calibrate, for a loss."""

LONGEST = 1000
"""Iterations of a loss after which the mode calibrate ends for it at the latest."""

BURST = 2 * ENOUGH
"""Iterations after a loss switches on in which each one may be sampled, until there are enough samples."""

NEW = 10
"""So many adjustments long a loss is new: norms change fast, which fewer samples would follow too late."""

SAMPLES_WHEN_NEW = 25
"""Samples for each adjustment of a new loss; later there is one."""


@AUTOMATIONS.register("DynamicLossScheduling")
class DynamicLossScheduling:
    """Keeps w_i n_i / (w_a n_a), a loss's share of the gradient relative to the anchor's, at its target.

    w are the weights, n the L2 norms of the unweighted losses' gradients at the last convolution of net_g; the
    logarithm of n_i / n_a is averaged with 0.9 per sample. The target is the loss's `share`, else what its weight gave
    as the mean of its first 20 samples, so that a weight that was chosen is respected. Every `adjustment_frequency`
    iterations there is a sample; the weight of a share that is off by more than 10 % is changed, by 10 % at most each
    time, until the share is off by less than 5 %. A new loss with a given `share` has 25 samples for each of its first
    ten adjustments, which have no limit but max_factor. The anchor, losses with `fixed: true` and of weight 0 keep
    their weights; those in a ramp or a move of a loss scheduler too, as long as it lasts. What is not finite does not
    count. `calibrate` ends for a loss when five adjustments in a row stay under 2 %, or after its first 1,000
    iterations; `off` leaves the calibration by the training images alone.

    Shapes: none. Range: factors within [1 / max_factor, max_factor], beside the calibration's in [0.5, 2].
    Reference: ours; the norms at the last layer are those of Esser, Rombach, Ommer, "Taming Transformers for
    High-Resolution Image Synthesis", CVPR 2021, equation 7, who set a weight by each step's.

    ```yaml
    training_automations:
      DynamicLossScheduling:
        anchor: l1loss
        adjustment_frequency: 50
        mode: continuous
    ```

    Raises:
        ConfigError: an anchor that is no loss of the run.
    """

    name = "DynamicLossScheduling"
    asked = "interval"
    max_adjustments = None

    def __init__(
        self,
        *,
        auto_calibrate: Annotated[
            bool, Field(description="multiply weights at the start by what the training images ask for")
        ] = True,
        anchor: Annotated[
            str | None,
            Field(description="label of the loss to which shares are relative; default: first pixel loss"),
        ] = None,
        adjustment_frequency: Annotated[int, Field(ge=1, description="iterations between adjustments")] = 50,
        max_factor: Annotated[float, Field(ge=1, description="largest factor of a weight, either way")] = 4.0,
        mode: Annotated[
            Mode, Field(description="adjust all the time, until shares have settled, or not at all")
        ] = "continuous",
    ) -> None:
        self._auto_calibrate, self._anchor, self._every = auto_calibrate, anchor or "", adjustment_frequency
        self._limit, self._mode = math.log(max_factor), mode
        self._run = RunFacts(total_iter=0)
        self._shares: dict[str, LossShare] = {}
        self._calibrated = False

    def start(self, run: RunFacts) -> list[str]:
        """Find the anchor.

        Raises:
            ConfigError: there is none.
        """
        self._run, self._anchor = run, _anchor(run.losses, self._anchor)
        self._shares = {label: LossShare() for label in run.losses}
        self._calibrated = not (self._auto_calibrate and run.measures and run.first_iteration == 1)
        unused = [label for label, facts in run.losses.items() if facts.share is not None and not facts.fixed]
        if self._mode == "off":
            does = "weights follow the training images alone" if self._auto_calibrate else "weights stay as they are"
            return [f"mode off: {does}{_no_effect(unused)}"]
        unused = [label for label in unused if label == self._anchor]
        targets = _targets(run.losses, self._anchor)
        return [f"keeps shares of the gradient, relative to {self._anchor}'s; {targets}{_no_effect(unused)}"]

    def samples_gradients(self, iteration: int) -> bool:
        """Every `adjustment_frequency` iterations, and at each one as long as a loss has too few samples."""
        shares = self._adapted()
        if not self._calibrated or not shares:
            return False
        if not any(share.since for share in self._shares.values()):
            return True  # nothing has been seen of the run yet
        live = [share for share in shares.values() if share.weight and not share.settled]
        if not live or not self._shares[self._anchor].weight:
            return False
        few = any(share.count < ENOUGH and iteration <= share.since + BURST for share in live)
        asked = {label for label, facts in self._run.losses.items() if facts.share is not None}
        new = any(self._is_new(shares[label], iteration) for label in asked & shares.keys())
        return few or iteration % (max(1, self._every // SAMPLES_WHEN_NEW) if new else self._every) == 0

    def observe_phase(self, iteration: int, what: Phase) -> None:
        """A loss that switches on is noticed by its weight."""

    def observe_step(self, step: StepFacts) -> None:
        """Take the weights of an iteration, and its gradients where sampled."""
        for label, share in self._shares.items():
            share.see(step.iteration, step.scheduled_weights.get(label, 0.0))
        anchor = step.gradients.get(self._anchor, 0.0)
        if not _usable(anchor) or not step.applied:
            return
        for label, share in self._adapted().items():
            norm = step.gradients.get(label, 0.0)
            if _usable(norm):
                share.take(norm, anchor)

    def observe_validation(self, validation: ValidationFacts) -> None:
        """Validations say nothing about gradients."""

    def decide(self, iteration: int) -> list[Decision]:
        """The calibration of a run that begins, new weights, and which have settled."""
        decisions: list[Decision] = []
        if not self._calibrated:
            decisions += self._calibrate()
        for label, share in self._adapted().items():
            if share.settled or not share.weight:
                continue
            if self._due(share, iteration):
                change = self._change(label, share, iteration)
                share.checked, share.fresh = iteration, False
                share.small = share.small + 1 if abs(change) < SMALL else 0
                if change:
                    decisions.append(self._adjustment(label, share, change))
            if self._mode == "calibrate":
                decisions += self._settled(label, share, iteration)
        return decisions

    def _adapted(self) -> dict[str, LossShare]:
        """The losses whose weights are not left alone."""
        if self._mode == "off":
            return {}
        losses = self._run.losses.items()
        return {label: self._shares[label] for label, facts in losses if label != self._anchor and not facts.fixed}

    def _calibrate(self) -> list[Decision]:
        """Multiply the weights of losses without a `share` by what the training images ask for."""
        self._calibrated = True
        decisions: list[Decision] = []
        for label, multiplier in calibrate(self._run.measures, self._run.losses).items():
            facts, share = self._run.losses[label], self._shares[label]
            if math.isclose(multiplier, 1):
                continue
            share.calibration = multiplier
            text = f"{_change(label, share.weight, 1.0, multiplier)} due to calibration ({facts.kind})"
            decisions.append(
                SetLossWeight(
                    reason="calibration",
                    text=text,
                    evidence={"multiplier": multiplier, **self._run.measures},
                    counts=False,
                    label=label,
                    factor=share.applied,
                )
            )
        return decisions

    def _is_new(self, share: LossShare, iteration: int) -> bool:
        return iteration <= share.since + NEW * self._every

    def _due(self, share: LossShare, iteration: int) -> bool:
        anchor = self._shares[self._anchor]
        if not anchor.weight or share.moving(iteration) or anchor.moving(iteration):
            return False
        early = share.checked is not None and iteration - share.checked < self._every
        return share.fresh and share.count >= ENOUGH and not early

    def _change(self, label: str, share: LossShare, iteration: int) -> float:
        """What is to be added to the logarithm of a factor; 0 if it is to stay."""
        asked, now = self._run.losses[label].share, math.log(share.factor)
        wanted = now + math.log(self._target(label, share) / self._share(share))
        change = min(max(wanted, -self._limit), self._limit) - now
        if asked is not None and (share.checked is None or self._is_new(share, iteration)):
            return 0.0 if abs(change) < SMALL else change
        share.correcting = abs(change) >= (DEAD_BAND if share.correcting else LATITUDE)
        return min(max(change, -STEP), STEP) if share.correcting else 0.0

    def _share(self, share: LossShare) -> float:
        """A loss's share of the gradient as it is."""
        return math.exp(share.level) * share.applied * share.weight / self._anchor_weight

    def _target(self, label: str, share: LossShare) -> float:
        asked = self._run.losses[label].share
        if asked is not None:
            return asked
        # a schedule that has changed the weight since has changed the target with it
        return math.exp(share.reference or 0.0) * share.calibration * share.weight / self._anchor_weight

    @property
    def _anchor_weight(self) -> float:
        anchor = self._shares[self._anchor]
        return anchor.weight * anchor.applied

    def _adjustment(self, label: str, share: LossShare, change: float) -> Decision:
        found, target = self._share(share), self._target(label, share)
        before, share.factor = share.applied, share.factor * math.exp(change)
        text = _change(label, share.weight, before, share.applied)
        return SetLossWeight(
            reason="gradient share",
            text=f"{text} due to gradient share {found:.3g} (target {target:.3g})",
            evidence={"share": found, "target": target, "norm": share.norm},
            label=label,
            factor=share.applied,
        )

    def _settled(self, label: str, share: LossShare, iteration: int) -> list[Decision]:
        """That a loss's weight stays from here on, if it does."""
        few = share.small >= SMALL_IN_A_ROW
        if not few and iteration - share.since < LONGEST:
            return []
        share.settled = True
        why = f"{SMALL_IN_A_ROW} adjustments in a row under 2 %" if few else f"{LONGEST:,} iterations are over"
        text = f"loss weight of {label} stays at {share.weight * share.applied:.3g}: {why}"
        return [Note(reason="settled", text=text, evidence={"factor": share.applied}, counts=False)]

    def holding(self) -> list[Decision]:
        """The factors of weights that are not the option file's."""
        return [
            SetLossWeight(reason="resume", text="", counts=False, label=label, factor=share.applied)
            for label, share in self._shares.items()
            if share.applied != 1
        ]

    def fallback(self) -> list[Decision]:
        """The weights as the option file and the calibration have them."""
        decisions: list[Decision] = []
        for label, share in self._shares.items():
            if share.factor == 1:
                continue
            before, share.factor = share.applied, 1.0
            text = f"{_change(label, share.weight, before, share.applied)} due to fallback"
            decisions.append(
                SetLossWeight(reason="fallback", text=text, counts=False, label=label, factor=share.applied)
            )
        return decisions

    def state_dict(self) -> dict[str, Any]:
        """What is known of each loss, and whether the calibration has been applied."""
        losses = {label: share.state_dict() for label, share in self._shares.items()}
        return {"calibrated": self._calibrated, "anchor": self._anchor, "losses": losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state; losses that it does not have begin anew, those that the run lacks are forgotten.

        What the present options leave alone has the weight that they give it; and what was measured against another
        anchor is measured again.
        """
        self._calibrated = state_dict["calibrated"]
        adapted = self._adapted()
        for label, state in state_dict["losses"].items():
            if label not in self._shares or self._run.losses[label].fixed:
                continue
            share = LossShare.of(state)
            if self._mode != "off" and state_dict["anchor"] != self._anchor:
                share = LossShare(calibration=share.calibration, factor=share.factor if label in adapted else 1.0)
            log = math.log(share.factor)
            if abs(log) > self._limit + 1e-9:  # otherwise it stays what it is, to the last digit
                share.factor = math.exp(math.copysign(self._limit, log))
            self._shares[label] = share


def _no_effect(labels: Sequence[str]) -> str:
    return f"; share has no effect for {', '.join(labels)}" if labels else ""


def _usable(norm: float) -> bool:
    return math.isfinite(norm) and norm > 0


def _change(label: str, weight: float, before: float, after: float) -> str:
    return f"loss weight of {label} adjusted from {weight * before:.3g} to {weight * after:.3g}"


def _anchor(losses: Mapping[str, LossFacts], asked: str) -> str:
    """The label of the anchor: the one asked for, else the first pixel loss, else the first that has no opponent."""
    if asked and asked not in losses:
        message = f"found {asked!r}; accepted: a label of train.losses: {', '.join(losses)}"
        raise ConfigError(Problem(key="anchor", message=message))
    pixel = [label for label, facts in losses.items() if facts.kind == "pixel"]
    others = [label for label, facts in losses.items() if facts.kind != "adversarial"]
    found = [*([asked] if asked else []), *pixel, *others]
    if not found:
        message = f"there is no loss but adversarial ones; accepted: the label of one of them: {', '.join(losses)}"
        raise ConfigError(Problem(key="anchor", message=message))
    return found[0]


def _targets(losses: Mapping[str, LossFacts], anchor: str) -> str:
    """What is kept for each loss, in words."""
    others = {label: facts for label, facts in losses.items() if label != anchor}
    asked = [f"{label} {facts.share:g}" for label, facts in others.items() if facts.share and not facts.fixed]
    fixed = [label for label, facts in others.items() if facts.fixed]
    kept = [label for label, facts in others.items() if not facts.share and not facts.fixed]
    parts = [
        *([f"targets: {', '.join(asked)}"] if asked else []),
        *([f"by their weights at the start: {', '.join(kept)}"] if kept else []),
        *([f"fixed weights: {', '.join(fixed)}"] if fixed else []),
    ]
    return "; ".join(parts) or "there is no other loss"
