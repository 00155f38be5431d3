"""Weights for the images at hand: what each loss's weight is multiplied by, from measures of the training images.

The formulas are rules of thumb, which is why they are bounded: what is compared counts more where there is more of it,
by the fourth root, and a discriminator less where it would learn noise or JPEG's blocks by heart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from traiNNer.training_automations.base import LossFacts
from traiNNer.utils.image_measures import REFERENCE

LIMIT = 2.0
"""Multipliers lie between 1 / LIMIT and LIMIT."""

EXPONENT = 0.25
NOISY = 5.0
"""Noise above which adversarial losses are halved; levels of 255."""
BLOCKY = 1.3
"""Blockiness above which they are; of eight photographs all stay under 1.25, and all exceed 1.45 as JPEG quality 30."""

MEASURE_OF = {
    "perceptual": "texture_variance",
    "frequency": "texture_variance",
    "adversarial": "texture_variance",
    "structure": "edge_density",
    "color": "colorfulness",
}
"""What each kind of loss follows; others follow nothing."""

_HALVING = {"noise": NOISY, "blockiness": BLOCKY}


class Row(NamedTuple):
    """A line of the table that says what was found and what follows."""

    measure: str
    found: str
    reference: str
    follows: str


def calibrate(measures: Mapping[str, float], losses: Mapping[str, LossFacts]) -> dict[str, float]:
    """(measure / reference)^0.25 by the loss's kind, brought to the geometric mean 1 within [0.5, 2].

    Texture variance acts on perceptual, frequency and adversarial losses, edge density on those of structure,
    colourfulness on those of colour; adversarial ones are halved for noisy or blocky images. The geometric mean is
    over all losses but those that are `fixed` or have a `share`, which decides for them; those keep exactly 1.

    Args:
        measures: of the training images, by name; one that is missing has no effect.
        losses: the run's, by label.

    Returns:
        By label, what to multiply the weight by.
    """
    free = [label for label, facts in losses.items() if _free(facts)]
    logarithms = [_raw_logarithm(measures, losses[label].kind) for label in free]
    balanced = dict(zip(free, map(math.exp, _balanced(logarithms)), strict=True))
    return {label: balanced.get(label, 1.0) for label in losses}


def describe(measures: Mapping[str, float], losses: Mapping[str, LossFacts]) -> list[Row]:
    """The table of a calibration: each measure, what is usual, and the multipliers that follow."""
    multipliers = calibrate(measures, losses)
    usual = REFERENCE.by_name()
    halved = _halving_reasons(measures)
    rows: list[Row] = []
    for name in usual:
        if name not in measures:
            continue
        if name in _HALVING:
            adversarial = any(facts.kind == "adversarial" and _free(facts) for facts in losses.values())
            follows = "adversarial losses halved" if name in halved and adversarial else "nothing"
            reference = f"{usual[name]:.4g}, high above {_HALVING[name]:g}"
        else:
            follows = _listed(
                multipliers, [label for label, facts in losses.items() if MEASURE_OF.get(facts.kind) == name], losses
            )
            reference = f"{usual[name]:.4g}"
        rows.append(Row(name.replace("_", " "), f"{measures[name]:.4g}", reference, follows))
    others = [label for label, facts in losses.items() if facts.kind not in MEASURE_OF]
    if others:
        rows.append(Row("geometric mean", "1", "1", _listed(multipliers, others, losses)))
    return rows


def _raw_logarithm(measures: Mapping[str, float], kind: str) -> float:
    """Logarithm of the formula's value, within the limits: a flat data set has measures of 0."""
    name = MEASURE_OF.get(kind)
    if name is None:
        return 0.0
    usual = REFERENCE.by_name()[name]
    ratio = max(measures.get(name, usual) / usual, LIMIT ** (-1 / EXPONENT))
    logarithm = EXPONENT * math.log(ratio)
    if kind == "adversarial" and _halving_reasons(measures):
        logarithm -= math.log(2)
    return max(-math.log(LIMIT), min(math.log(LIMIT), logarithm))


def _halving_reasons(measures: Mapping[str, float]) -> list[str]:
    return [name for name, high in _HALVING.items() if measures.get(name, 0.0) > high]


def _balanced(logarithms: Sequence[float]) -> list[float]:
    """The values with one number added to all, each then clamped to the limits, so that their sum is 0.

    The sum rises with the number added, steadily from below 0 to above it; halving an interval finds it. This is the
    nearest point to the values that keeps limits and sum.
    """
    limit = math.log(LIMIT)

    def shifted(by: float) -> list[float]:
        return [max(-limit, min(limit, value + by)) for value in logarithms]

    low, high = -2 * limit, 2 * limit  # the values are within the limits, so all are clamped at either end
    while low < (middle := (low + high) / 2) < high:
        if math.fsum(shifted(middle)) < 0:
            low = middle
        else:
            high = middle
    return shifted(high)


def _listed(multipliers: Mapping[str, float], labels: Sequence[str], losses: Mapping[str, LossFacts]) -> str:
    def multiplier(label: str) -> str:
        facts = losses[label]
        return f"x {multipliers[label]:.2f}" if _free(facts) else "fixed" if facts.fixed else "by its share"

    return ", ".join(f"{label} {multiplier(label)}" for label in labels) or "nothing"


def _free(facts: LossFacts) -> bool:
    return not facts.fixed and facts.share is None
