"""`kl_beta`, `kl_warmup_steps` and `kl_free_bits`: an entry of `train.losses`, wherever a file has them."""

from __future__ import annotations

import pytest

from .conftest import GOOD, change

LOSS = "    - type: ConfigTestLoss\n      loss_weight: 1.0\n"
KL = {"type": "klloss", "name": "klloss", "free_bits": 0.0, "reduction": "mean"}
WARM_UP = {"loss_weight": 0.0, "target_weight": 1e-4, "target_iter": 5000}
LINE = 2 + GOOD.splitlines().index("    - type: ConfigTestLoss")
"""The last line of the good file's losses."""

ALL = "kl_beta: 0.01", "kl_warmup_steps: 20%", "kl_free_bits: 0.5"
WRITTEN = KL | WARM_UP | {"target_weight": 0.01, "target_iter": 400, "free_bits": 0.5}


def lines(indent: str, *keys: str) -> str:
    return "".join(f"{indent}{key}\n" for key in keys)


@pytest.mark.parametrize("kind", ["klloss", "KL", "KL_Loss"])
def test_in_an_entry_they_are_the_keys_of_its_schedule(kind: str, load) -> None:
    entry = f"    - type: {kind}\n{lines('      ', *ALL)}"

    options = load(change(LOSS, LOSS + entry))

    assert dict(options.train.losses[1]) == WRITTEN
    assert str(options.problem("train.losses[1].target_weight", "x")).endswith(
        f":{LINE + 2}: train.losses[1].kl_beta: x"
    )


@pytest.mark.parametrize("where", ["train", "top level"])
def test_beside_the_losses_they_make_an_entry(where: str, load) -> None:
    text = change(LOSS, LOSS + lines("  ", *ALL)) if where == "train" else GOOD + lines("", *ALL)

    options = load(text)

    assert [dict(loss) for loss in options.train.losses[1:]] == [WRITTEN]
    at = (LINE + 1, "train.kl_") if where == "train" else (len(GOOD.splitlines()) + 1, "kl_")
    assert str(options.problem("train.losses[1]", "x")).endswith(f":{at[0]}: {at[1]}beta: x")
    assert str(options.problem("train.losses[1].free_bits", "x")).endswith(f":{at[0] + 2}: {at[1]}free_bits: x")


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("kl_beta: 1", {"target_weight": 1.0}),
        ("kl_warmup_steps: 20k", {"target_iter": 20_000}),
        ("kl_free_bits: 0.25", {"free_bits": 0.25}),
    ],
)
def test_one_of_them_brings_the_defaults_of_the_others(key: str, changed: dict[str, float], load) -> None:
    for text in (GOOD + lines("", key), change(LOSS, LOSS + f"    - type: klloss\n      {key}\n")):
        assert dict(load(text).train.losses[1]) == KL | WARM_UP | changed


def test_null_is_not_written(load) -> None:
    text = change(LOSS, LOSS + "  kl_beta: ~\n") + "kl_free_bits:\n"
    assert len(load(text).train.losses) == 1
    entry = "    - {type: klloss, loss_weight: 0.1, kl_beta: ~, kl_free_bits: ~}\n"
    assert dict(load(change(LOSS, LOSS + entry)).train.losses[1]) == KL | {"loss_weight": 0.1}


def test_the_entry_stands_where_there_are_no_other_losses(load) -> None:
    text = change("  losses:\n" + LOSS, lines("  ", "kl_beta: 0.1"))
    assert [loss["type"] for loss in load(text).train.losses] == ["klloss"]


def test_in_an_entry_of_another_type_they_are_unknown(mistakes) -> None:
    [found] = mistakes(change(LOSS, LOSS + "      kl_beta: 0.1\n"))
    assert f"x.yml:{LINE + 1}: train.losses[0].kl_beta: unknown key" in found


TWICE = {
    "in an entry, by both names": (
        change(LOSS, LOSS + "    - type: klloss\n      kl_beta: 0.1\n      target_weight: 0.2\n"),
        f"x.yml:{LINE + 2}: train.losses[1].kl_beta: the same as train.losses[1].target_weight in line {LINE + 3}; ",
    ),
    "in train and at top level": (
        change(LOSS, LOSS + "  kl_beta: 0.1\n") + "kl_beta: 0.1\n",
        f"x.yml:{len(GOOD.splitlines()) + 2}: kl_beta: the same as train.kl_beta in line {LINE + 1}; ",
    ),
    "in an entry and in train": (
        change(LOSS, LOSS + "    - {type: klloss, kl_beta: 0.1}\n  kl_free_bits: 0.5\n"),
        f"x.yml:{LINE + 2}: train.kl_free_bits: the same as train.losses[1] in line {LINE + 1}; ",
    ),
}


@pytest.mark.parametrize("case", TWICE)
def test_written_twice_is_a_mistake(case: str, mistakes) -> None:
    text, expected = TWICE[case]
    assert mistakes(text) == [f"{expected}accepted: one of them"]


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("kl_beta: true", "kl_beta: found true; accepted: a number"),
        ("kl_warmup_steps: soon", "kl_warmup_steps: found 'soon'; accepted: a whole number of iterations"),
        ("kl_free_bits: -1", "kl_free_bits: found -1; accepted: at least 0"),
    ],
)
def test_mistakes_name_the_key_that_stands_in_the_file(key: str, found: str, mistakes) -> None:
    [message] = mistakes(GOOD + lines("", key))
    assert message.startswith(f"x.yml:{len(GOOD.splitlines()) + 1}: {found}")
