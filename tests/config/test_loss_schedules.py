"""Schedules of loss weights in an option file: their mistakes, their notices, percentages and old spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from traiNNer.config import load_options
from traiNNer.losses import build_loss, build_losses
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import LOSSES

from .conftest import GOOD, ConfigTestLoss, change, marked_line, registered

ENTRY = "    - type: ConfigTestLoss\n      loss_weight: 1.0\n"
LOSSES_KEY = f"  losses:\n{ENTRY}"
WHOLE = "accepted: a whole number of iterations, at least 0"
POSITIVE = "exponential only between two positive weights"

# The lines after loss_weight (the faulty one marked), the key that is named, and what the message says.
MISTAKES = {
    "unknown type": (["target_iter: 9", "schedule_type: liner  # <-"], "schedule_type", "(did you mean linear?)"),
    "target before start": (["start_iter: 500", "target_iter: 499  # <-"], "target_iter", "start_iter, 500"),
    "end before start": (["disable_after: 4  # <-", "start_iter: 5"], "disable_after", "start_iter, 5"),
    "target before start, as parts of the run": (
        ["start_iter: 50%", "target_iter: 20%  # <-"],
        "target_iter",
        "start_iter, 1000",
    ),
    "end before start, as a part of the run": (
        ["start_iter: 1k", "disable_after: 49%  # <-"],
        "disable_after",
        "start_iter, 1000",
    ),
    "negative start": (["start_iter: -1  # <-"], "start_iter", WHOLE),
    "negative target": (["target_iter: -5k  # <-"], "target_iter", WHOLE),
    "half an iteration": (["disable_after: 20.5  # <-"], "disable_after", WHOLE),
    "part of an iteration": (["start_iter: 1.2345k  # <-"], "start_iter", WHOLE),
    "negative percentage": (["start_iter: -5%  # <-"], "start_iter", WHOLE),
    "percentage above 100": (["start_iter: 101%  # <-"], "start_iter", "a percentage between 0% and 100%"),
    "start of net_d": (["discriminator_start_iter: soon  # <-"], "discriminator_start_iter", WHOLE),
    "no weight": (["target_weight: .nan  # <-"], "target_weight", "found nan; accepted: a finite number"),
    "infinite weight": (["target_weight: -.inf  # <-"], "target_weight", "found -inf; accepted: a finite number"),
    "unsorted knots": (["knots: [[10, 1.0], [5, 2.0]]  # <-"], "knots", "knots whose iterations rise"),
    "unsorted parts of the run": (["knots: [[50%, 1.0], [500, 2.0]]  # <-"], "knots", "knots whose iterations rise"),
    "knots and target": (["target_weight: 2.0", "knots: [[10, 1.0]]  # <-"], "knots", "target_weight"),
    "knot of no weight": (["knots:", "  - [10, 1.0]", "  - [20, .inf]  # <-"], "knots[1][1]", "a finite number"),
    "weight as a part of the run": (["target_weight: 30%  # <-"], "target_weight", "found '30%'; accepted: a number"),
    "knot's weight as a part of the run": (["knots: [[10, 1.0], [20, 30%]]  # <-"], "knots[1][1]", "found '30%'"),
    "misspelled": (["target_wieght: 2.0  # <-"], "target_wieght", "(did you mean target_weight?)"),
    "misspelled end": (["disable_afer: 5  # <-"], "disable_afer", "(did you mean disable_after?)"),
    "other sign": (["target_weight: -0.1  # <-"], "target_weight", "the sign of loss_weight"),
    "knots of other sign": (["knots: [[10, 1.0], [15, -2.0]]  # <-"], "knots", "the sign of loss_weight"),
    "exponential to 0": (
        ["target_iter: 9", "target_weight: 0", "schedule_type: exponential  # <-"],
        "schedule_type",
        POSITIVE,
    ),
}


def with_keys(*lines: str) -> str:
    """The good file with more keys for its loss."""
    return change(ENTRY, ENTRY + "".join(f"      {line}\n" for line in lines))


def with_losses(*entries: dict[str, Any], total_iter: int = 2000) -> str:
    """The good file with these losses, one a line from line 29 on."""
    rows = [f"    - {json.dumps({'type': 'ConfigTestLoss', **entry})}\n" for entry in entries]
    text = change("  total_iter: 2000", f"  total_iter: {total_iter}")
    return change(ENTRY, "".join(rows), change("    milestones: [1000, 1500]", "    milestones: [1]", text))


def notices(options: Any) -> list[str]:
    return [notice.partition("x.yml:")[2] for notice in options.notices]


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_with_place_and_key(case: str, mistakes) -> None:
    lines, key, words = MISTAKES[case]
    text = with_keys(*lines)

    (found,) = mistakes(text)

    assert found.startswith(f"x.yml:{marked_line(text)}: train.losses[0].{key}: ")
    assert "; accepted: " in found
    assert words in found


def test_mistakes_of_several_entries_are_found_at_once(mistakes) -> None:
    text = with_losses(
        {"loss_weight": 1.0, "start_itr": 5},
        {"loss_weight": 1.0, "start_iter": 5},
        {"loss_weight": 1.0, "start_iter": 5, "target_iter": 4},
        {"loss_weight": -1.0, "target_weight": 4},
    )

    places = [": ".join(line.split(": ")[:2]) for line in mistakes(text)]

    first = text[: text.index("    - {")].count("\n") + 1
    assert places == [
        f"x.yml:{first}: train.losses[0].start_itr",
        f"x.yml:{first + 2}: train.losses[2].target_iter",
        f"x.yml:{first + 3}: train.losses[3].target_weight",
    ]


SPELLED = """\
start_iter: 30%
target_iter: "70 %"
target_weight: 2
disable_after: 1.5k
discriminator_start_iter: 12.5%
""".splitlines()


def test_iterations_are_resolved(load) -> None:
    (loss,) = load(with_keys(*SPELLED)).train.losses

    names = ("start_iter", "target_iter", "disable_after", "discriminator_start_iter")
    assert [loss[name] for name in names] == [600, 1400, 1500, 250]
    assert build_loss(loss).schedule.values([599, 600, 1000, 1400, 1500, 1501]).tolist() == [0, 1, 1.5, 2, 2, 0]


def test_knots_are_resolved(load) -> None:
    (loss,) = load(with_keys("knots: [[0.5k, 1], [50%, 2], [100%, 4]]")).train.losses

    assert [list(knot) for knot in loss["knots"]] == [[500, 1], [1000, 2], [2000, 4]]
    assert build_loss(loss).schedule.values([1, 500, 750, 1000, 1500, 2000]).tolist() == [1, 1, 1.5, 2, 3, 4]


def test_parts_of_a_run_written_in_thousands(load) -> None:
    (loss,) = load(change("  total_iter: 2000", "  total_iter: 2k", with_keys("start_iter: 30%"))).train.losses

    assert loss["start_iter"] == 600


def test_a_loss_without_schedule_gets_none(load) -> None:
    options = load(GOOD)

    assert set(options.train.losses[0]) == {"type", "loss_weight", "name", "reduction"}
    assert not build_loss(options.train.losses[0]).schedule.scheduled
    assert options.notices == []


def test_a_target_weight_without_target_is_noticed(load) -> None:
    text = with_keys("target_weight: 2.0  # <-", "schedule_type: step")

    assert notices(load(text)) == [
        f"{marked_line(text)}: train.losses[0].target_weight: there is no target_iter, so the weight is this from "
        "iteration 1 on; loss_weight is not used"
    ]


def test_a_ramp_that_is_cut_off_is_noticed(load) -> None:
    text = with_keys("target_iter: 60%", "target_weight: 2.0", "disable_after: 1k  # <-")
    text = change("  losses:\n", "  losses:\n    - {type: ConfigTestLoss, loss_weight: 1.0}\n", text)

    assert notices(load(text)) == [
        f"{marked_line(text)}: train.losses[1].disable_after: the loss ends at disable_after, 1,000, before its target "
        "at 1,200"
    ]


@pytest.mark.parametrize("disable_after", ["60%", "2k"])
def test_schedules_that_do_what_they_say_are_not_noticed(disable_after: str, load) -> None:
    text = with_keys("target_iter: 60%", "target_weight: 2.0", f"disable_after: {disable_after}  # <-")
    text = change("  losses:\n", "  losses:\n    - {type: ConfigTestLoss, loss_weight: 1.0}\n", text)

    assert notices(load(text)) == []


def test_a_loss_that_never_has_a_weight_is_noticed(load) -> None:
    text = with_losses({"loss_weight": 1.0}, {"loss_weight": 1.0, "start_iter": 2001}, {"loss_weight": 0.0})

    (notice,) = notices(load(text))

    line = text[: text.index('"start_iter"')].count("\n") + 1
    assert notice == f"{line}: train.losses[1].loss_weight: the weight is 0 for the whole run: the loss is left out"


def test_only_a_loss_that_never_has_a_weight_is_left_out(load) -> None:
    ramp = {"target_iter": 2000, "target_weight": 0.5}
    options = load(
        with_losses(
            {"loss_weight": 0.0, **ramp, "name": "rises"},
            {"loss_weight": 0.0, **ramp, "schedule_type": "step", "name": "steps_at_the_end"},
            {"loss_weight": 0.0, **ramp, "schedule_type": "step", "disable_after": 1999, "name": "too_late"},
            {"loss_weight": 1.0, "start_iter": "100%", "name": "last_iteration"},
            {"loss_weight": 0.0, "name": "zero"},
            {"loss_weight": 1.0, "target_weight": 0.0, "name": "jumps_to_zero"},
            {"loss_weight": 0.0, "knots": [["1%", 0], ["2%", 1], ["3%", 0]], "name": "knots"},
        )
    )

    assert len(options.train.losses) == 7
    losses = build_losses(options.train.losses, total_iter=options.train.total_iter)
    assert list(losses) == ["rises", "steps_at_the_end", "last_iteration", "knots"]


def test_losses_that_all_never_have_a_weight_are_refused(mistakes) -> None:
    (found,) = mistakes(with_losses({"loss_weight": 1.0, "start_iter": 2001}, {"loss_weight": 0}))

    assert "train.losses: found only losses whose weight is 0 in the whole run; accepted: " in found


SMALL = st.integers(0, 12)
WEIGHTS = st.sampled_from([0.0, 0.0, 0.5])


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """Short schedules with many zeros."""
    start = draw(SMALL)
    entry: dict[str, Any] = {"loss_weight": draw(WEIGHTS), "start_iter": start}
    if draw(st.booleans()):
        entry["knots"] = [[at, draw(WEIGHTS)] for at in sorted(draw(st.sets(SMALL, min_size=1, max_size=5)))]
    else:
        entry |= {"target_iter": start + draw(SMALL), "target_weight": draw(WEIGHTS)}
        entry["schedule_type"] = draw(st.sampled_from(["linear", "step", "cosine", "smoothstep"]))
    if draw(st.booleans()):
        entry["disable_after"] = start + draw(SMALL)
    return entry


GAP = {"loss_weight": 1.0, "knots": [[0, 1], [5, 0], [9, 0], [15, 1]]}


@given(losses=st.lists(entries(), min_size=1, max_size=3), total_iter=st.integers(1, 20))
@example(losses=[GAP], total_iter=20)
@example(losses=[{"loss_weight": 1.0, "disable_after": 5}, {"loss_weight": 1.0, "start_iter": 17}], total_iter=20)
@example(losses=[{"loss_weight": 1.0, "disable_after": 6}, {"loss_weight": 1.0, "start_iter": 7}], total_iter=20)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_iteration_without_any_loss_is_noticed(
    losses: list[dict[str, Any]], total_iter: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.yml"
    path.write_text(with_losses(*losses, total_iter=total_iter), encoding="utf-8")
    iterations = range(1, total_iter + 1)
    weights = np.array([build_loss({"type": "l1loss", **entry}).schedule.values(iterations) for entry in losses])
    idle = np.flatnonzero(~weights.any(axis=0)) + 1
    if len(idle) == total_iter:
        with pytest.raises(ConfigError, match="only losses whose weight is 0 in the whole run"):
            load_options(path)
        return
    expected = (
        [f"train.losses: no loss has a weight at iteration {idle[0]}: net_g is not trained there"] if idle.size else []
    )
    assert [each.split(": ", 1)[1] for each in notices(load_options(path)) if "no loss has" in each] == expected


class OwnPowerLoss(ConfigTestLoss):
    """A loss whose parameter is called as a key of schedules is."""

    def __init__(self, *, power: Annotated[float, Field(description="exponent")] = 2.0) -> None:
        super().__init__()
        self.power = power


def test_a_parameter_of_the_loss_does_not_hide_its_schedule(load, mistakes) -> None:
    with registered(LOSSES, "OwnPowerLoss", OwnPowerLoss):
        text = change("type: ConfigTestLoss", "type: OwnPowerLoss", with_keys("power: -1", "target_weight: 2.0"))
        options = load(text)
        loss = build_loss(options.train.losses[0])
        late = change("target_weight: 2.0", "start_iter: 2001", text)

        assert (loss.loss.power, loss.schedule.power) == (-1, 2)
        assert [notice.split(": ")[1] for notice in notices(options)] == ["train.losses[0].target_weight"]
        assert "only losses whose weight is 0 in the whole run" in mistakes(late)[0]


def test_a_parameter_of_the_loss_is_no_schedule(load) -> None:
    with registered(LOSSES, "OwnPowerLoss", OwnPowerLoss):
        zero = "    - {type: OwnPowerLoss, power: 3.0, loss_weight: 0}\n"
        options = load(change(ENTRY, ENTRY + zero))

        assert options.notices == []


def test_losses_at_top_level_are_those_of_train(load, mistakes) -> None:
    text = (
        change(LOSSES_KEY, "")
        + "losses:\n"
        + "".join(f"  {line}\n" for line in ("- type: ConfigTestLoss", "  loss_weight: 0.5", "  start_iter: 10%  # <-"))
    )

    (loss,) = load(text).train.losses
    assert (loss["loss_weight"], loss["start_iter"]) == (0.5, 200)

    wrong = change("10%", "110%", text)
    (found,) = mistakes(wrong)
    assert found.startswith(f"x.yml:{marked_line(wrong)}: losses[0].start_iter: found '110%'; accepted: ")


def test_losses_in_both_places_are_refused(mistakes) -> None:
    text = GOOD + "losses:\n  - {type: ConfigTestLoss, loss_weight: 0.5, start_iter: 5}\n"

    (found,) = mistakes(text)

    line = GOOD[: GOOD.index("  losses:")].count("\n") + 1
    assert found == (
        f"x.yml:{GOOD.count(chr(10)) + 1}: losses: the same as train.losses in line {line}; accepted: one of them"
    )


def test_old_forms_are_scheduled_too(load, mistakes) -> None:
    old = ["pixel_opt:", "  type: ConfigTestLoss", "  loss_weight: 0.5", "  target_weight: 1.0", "  target_iter: 20%"]
    text = change(LOSSES_KEY, LOSSES_KEY + "".join(f"  {line}\n" for line in old))

    bare, scheduled = load(text).train.losses
    assert not build_loss(bare).schedule.scheduled
    assert build_loss(scheduled).schedule.values([1, 200, 400]).tolist() == [0.5 + 0.5 / 400, 0.75, 1.0]

    wrong = change("target_iter: 20%", "target_iter: -1  # <-", text)
    (found,) = mistakes(wrong)
    assert found.startswith(f"x.yml:{marked_line(wrong)}: train.pixel_opt.target_iter: found -1; {WHOLE}")


def test_notices_of_an_old_form_name_the_old_key(load) -> None:
    old = "  pixel_opt: {type: ConfigTestLoss, loss_weight: 0.5, target_weight: 1.0}  # <-\n"
    text = change(LOSSES_KEY, old)

    assert notices(load(text))[0].startswith(f"{marked_line(text)}: train.pixel_opt.target_weight: there is no target")


def test_a_label_of_the_log_itself_is_refused(mistakes) -> None:
    (found,) = mistakes(change("      loss_weight: 1.0", "      loss_weight: 1.0\n      name: finite"))
    assert "train.losses[0].name: found 'finite', which the log uses itself; accepted: another label" in found
