"""Multipliers of weights from measures: the formulas, their bounds and their geometric mean."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traiNNer.training_automations.base import LossFacts
from traiNNer.training_automations.calibration import BLOCKY, NOISY, calibrate, describe
from traiNNer.utils.image_measures import REFERENCE

USUAL = REFERENCE.by_name()
KINDS = ("pixel", "structure", "frequency", "perceptual", "color", "adversarial", "other")


def facts(*kinds: str) -> dict[str, LossFacts]:
    """Losses of these kinds, labelled by kind and place."""
    return {f"{kind}{place}": LossFacts(kind=kind) for place, kind in enumerate(kinds)}


def scaled(**factors: float) -> dict[str, float]:
    """The usual measures, some of them multiplied."""
    return {name: value * factors.get(name, 1.0) for name, value in USUAL.items()}


amounts = st.one_of(st.sampled_from([0.0, 1e9]), st.floats(-8, 8).map(lambda power: 10.0**power))


@settings(max_examples=300)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(USUAL, amounts)),
    st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), max_size=12),
)
def test_bounds_and_geometric_mean_hold_together(measures: dict[str, float], kinds: list[tuple[str, bool]]) -> None:
    losses = {str(place): LossFacts(kind=kind, fixed=fixed) for place, (kind, fixed) in enumerate(kinds)}
    found = calibrate(measures, losses)
    assert list(found) == list(losses)
    free = [found[label] for label, loss in losses.items() if not loss.fixed]
    assert all(found[label] == 1 for label, loss in losses.items() if loss.fixed)
    assert all(0.5 * (1 - 1e-12) <= factor <= 2 * (1 + 1e-12) for factor in free)
    assert math.fsum(map(math.log, free)) == pytest.approx(0, abs=1e-9)


def test_usual_images_change_nothing() -> None:
    assert calibrate(USUAL, facts(*KINDS)) == pytest.approx(dict.fromkeys(facts(*KINDS), 1.0))
    assert calibrate({}, facts(*KINDS)) == pytest.approx(dict.fromkeys(facts(*KINDS), 1.0))
    assert calibrate({}, {}) == {}


@pytest.mark.parametrize(
    ("measure", "kinds"),
    [
        ("texture_variance", {"perceptual", "frequency", "adversarial"}),
        ("edge_density", {"structure"}),
        ("colorfulness", {"color"}),
    ],
)
@pytest.mark.parametrize("factor", [1 / 4, 4.0])
def test_a_kind_follows_its_measure_by_the_fourth_root(measure: str, kinds: set[str], factor: float) -> None:
    for kind in KINDS:
        found = calibrate(scaled(**{measure: factor}), facts("pixel", kind))
        ratio = found[f"{kind}1"] / found["pixel0"]
        assert ratio == pytest.approx(factor**0.25 if kind in kinds else 1.0), kind


@pytest.mark.parametrize(("measure", "high"), [("noise", NOISY), ("blockiness", BLOCKY)])
def test_adversarial_losses_are_halved_for_noisy_or_blocky_images(measure: str, high: float) -> None:
    for value, factor in ((high * 0.999, 1.0), (high * 1.001, 0.5)):
        found = calibrate(USUAL | {measure: value}, facts("perceptual", "adversarial"))
        assert found["adversarial1"] / found["perceptual0"] == pytest.approx(factor)
    both = calibrate(USUAL | {"noise": 99.0, "blockiness": 9.0}, facts("pixel", "adversarial"))
    assert both["adversarial1"] / both["pixel0"] == pytest.approx(0.5)  # once


def test_a_multiplier_at_its_limit_leaves_the_balance_to_the_others() -> None:
    found = calibrate(scaled(colorfulness=0, texture_variance=16), facts("color", *["perceptual"] * 4))
    assert list(found.values()) == pytest.approx([0.5, *[2**0.25] * 4])


def test_fixed_losses_take_no_part() -> None:
    losses = facts("pixel", "perceptual") | {"kept": LossFacts(kind="perceptual", fixed=True)}
    found = calibrate(scaled(texture_variance=4), losses)
    assert found["kept"] == 1
    assert found["pixel0"] * found["perceptual1"] == pytest.approx(1)
    assert found["perceptual1"] == pytest.approx(4**0.125)


def test_the_table_names_each_loss_once_with_what_it_follows() -> None:
    losses = facts(*KINDS) | {"kept": LossFacts(kind="structure", fixed=True)}
    measures = USUAL | {"noise": 8.0}
    rows = {row.measure: row for row in describe(measures, losses)}
    assert list(rows) == [*(name.replace("_", " ") for name in USUAL), "geometric mean"]
    multipliers = calibrate(measures, losses)
    text = " | ".join(row.follows for row in rows.values())
    for label in losses:
        assert text.count(label) == 1
        expected = "kept fixed" if label == "kept" else f"{label} x {multipliers[label]:.2f}"
        assert expected in text
    assert rows["noise"].found == "8"
    assert rows["noise"].follows == "adversarial losses halved"
    assert rows["blockiness"].follows == "nothing"
    assert "kept fixed" in rows["edge density"].follows
    assert [row.follows for row in describe(measures, {})] == ["nothing"] * 5
