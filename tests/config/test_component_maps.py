"""Optimizers and schedulers by component, in the option file and in a file of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from traiNNer.config import load_options
from traiNNer.config.component_maps import components
from traiNNer.utils.errors import ConfigError

from .conftest import GOOD, change

OPTIM = """\
  optim_g:
    type: configtestoptimizer
    lr: 2e-4
    betas: [0.9, 0.99]
"""
SCHEDULER = """\
  scheduler:
    type: ConfigTestScheduler
    milestones: [1000, 1500]
"""


@pytest.mark.parametrize("name", ["net_g", "generator", "g"])
@pytest.mark.parametrize("section", ["optimizers", "optimizer_config"])
@pytest.mark.parametrize("under_train", [True, False])
def test_an_optimizer_by_any_spelling(load: Callable[..., Any], name: str, section: str, under_train: bool) -> None:
    entry = f"{section}: {{{name}: {{type: configtestoptimizer, lr: 3e-4}}}}\n"
    text = change(OPTIM, f"  {entry}") if under_train else change(OPTIM, "") + entry
    assert load(text).train.optim_g["lr"] == 3e-4


def test_schedulers_of_one_network_and_of_every_network(load: Callable[..., Any]) -> None:
    own = "  scheduler_config:\n    discriminator: {type: ConfigTestScheduler, milestones: [7]}\n"
    train = load(change(SCHEDULER, SCHEDULER + own)).train
    assert train.scheduler["milestones"] == [1000, 1500]
    assert train.scheduler_d["milestones"] == [7]
    assert train.scheduler_g is None


def test_mistakes_are_where_they_were_written(mistakes: Callable[..., Any]) -> None:
    (found,) = mistakes(
        change(OPTIM, "  optimizers:\n    generator:\n      type: configtestoptimizer\n      lr: fast\n")
    )
    assert "x.yml:25: train.optimizers.generator.lr: found 'fast'; accepted: a number" in found
    (found,) = mistakes(change(SCHEDULER, SCHEDULER + "  schedulers: {net_x: {type: ConfigTestScheduler}}\n"))
    assert "train.schedulers.net_x: this model has no such network; accepted: net_g (generator, g), net_d" in found
    (found,) = mistakes(change(SCHEDULER, SCHEDULER + "  schedulers: {vae: {type: ConfigTestScheduler}}\n"))
    assert "net_d (discriminator, d)" in found
    assert "did you mean" not in found
    (found,) = mistakes(change(SCHEDULER, SCHEDULER + "  schedulers: [1]\n"))
    assert "train.schedulers: found something else" in found


def test_names_of_the_reference() -> None:
    available = ["vae_encoder", "vae_decoder", "flow_processor", "text_encoder", "net_d"]
    assert components("vae", available) == ["vae_encoder", "vae_decoder"]
    assert components("flow", available) == ["flow_processor"]
    assert components("flow_processor", available) == ["flow_processor"]
    assert components("discriminator", available) == ["net_d"]
    assert components("vae") == []


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"optimizers": {"generator": {"type": "ConfigTestOptimizer", "lr": 5e-7}}}'),
        ("tabs.json", '{\n\t"optimizers": {\n\t\t"g": {"type":\t"ConfigTestOptimizer", "lr": 5e-7}\n\t}\n}'),
        ("a.yml", "optimizers:\n  net_g: {type: ConfigTestOptimizer, lr: 5e-7}\n"),
    ],
)
def test_a_file_replaces_the_components_that_it_names(written: Callable[..., Path], name: str, text: str) -> None:
    options = load_options(written("x.yml", GOOD), components=written(name, text))
    assert options.train is not None
    assert options.train.optim_g is not None
    assert options.train.optim_g["lr"] == 5e-7
    assert options.train.scheduler is not None
    assert options.train.scheduler["milestones"] == [1000, 1500]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"optimizers": {"net_g": {"type": "ConfigTestOptimizer", "lr": -1}}}',
            "a.json:1: optimizers.net_g.lr: found -1",
        ),
        ('{"optimisers": {}}', "a.json:1: optimisers: unknown key; accepted: optimizers"),
        ('{"optimizers": {"flow": {"type": "Lion"}}}', "a.json:1: optimizers.flow: this model has no such network"),
        (
            '{"optimizers": {"g": {"type": "ConfigTestOptimizer"},\n"net_g": {"type": "ConfigTestOptimizer"}}}',
            "a.json:2: optimizers.net_g: the same as optimizers.g in line 1; accepted: one of them",
        ),
        ('{"optimizers": ', "a.json:1: YAML syntax error"),
    ],
)
def test_mistakes_in_that_file_name_it(written: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_options(written("x.yml", GOOD), components=written("a.json", text))
    assert message in str(error.value)


def test_a_file_that_is_not_there(written: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_options(written("x.yml", GOOD), components=tmp_path / "none.json")


def test_options_of_a_network_that_is_not_there_are_told(load: Callable[..., Any]) -> None:
    own = "  optimizers: {net_d: {type: configtestoptimizer, lr: 3e-4}}\n"
    (notice,) = load(change(SCHEDULER, SCHEDULER + own)).notices
    assert notice.endswith("train.optimizers.net_d: has no effect without network_d")
