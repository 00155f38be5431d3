"""The pages about training automations: their tables are right, their YAML loads, their links lead on."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from traiNNer.config import load_options
from traiNNer.config.automations import TYPES
from traiNNer.config.sections import AutomationEntry
from traiNNer.utils.registry import AUTOMATIONS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OVERVIEW = DOCS / "training-automations.md"
PAGES = {
    "dynamic_loss_scheduling": "dynamic-loss",
    "intelligent_learning_rate_scheduler": "learning-rate",
    "dynamic_batch_size_optimizer": "batch-size",
    "adaptive_gradient_clipping": "gradient-clipping",
    "intelligent_early_stopping": "early-stopping",
}
FILES = [OVERVIEW, *(DOCS / "automations" / f"{name}.md" for name in PAGES.values())]


def page(key: str) -> str:
    return (DOCS / "automations" / f"{PAGES[key]}.md").read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for name, text in found if name == language]


def test_every_automation_has_a_page() -> None:
    assert set(PAGES) == set(TYPES)
    assert sorted((DOCS / "automations").glob("*.md")) == sorted(FILES[1:])


def defaults(key: str) -> dict[str, str]:
    """What the table of a page has to say: each key with its default."""
    factory = AUTOMATIONS.get(TYPES[key])
    values: dict[str, Any] = {"enabled": AutomationEntry.model_fields["enabled"].default}
    values |= {name: each.default for name, each in inspect.signature(factory).parameters.items()}
    values["max_adjustments"] = getattr(factory, "max_adjustments")  # noqa: B009 - a factory is any callable
    shown = {name: json.dumps(value).strip('"') for name, value in values.items()}
    return {name: "none" if text == "null" else f"`{text}`" for name, text in shown.items()}


@pytest.mark.parametrize("key", TYPES)
def test_the_table_has_every_option_with_its_default_and_unit(key: str) -> None:
    table = page(key).partition("## Options")[2].partition("\n\n|")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| .+ \|$", table, flags=re.MULTILINE)
    assert {name: default for name, default, _ in rows} == defaults(key)
    assert [name for name, _, unit in rows if not unit] == []


@pytest.mark.parametrize("key", TYPES)
def test_a_page_says_all_that_it_should(key: str) -> None:
    found = re.findall(r"^## (.+)$", page(key), flags=re.MULTILINE)
    wanted = ["What it watches", "When it acts", "Options", "What it says", "Interplay"]
    assert found == [*wanted, "Switching off", "Troubleshooting", "Limits"]
    (log, *_) = [text for text in blocks(DOCS / "automations" / f"{PAGES[key]}.md", "") if "Automation " in text]
    assert f"Automation {TYPES[key]}: " in log


BASE: dict[str, Any] = {
    "name": "page",
    "scale": 2,
    "datasets": {
        phase: {"name": phase, "type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq"}
        for phase in ("train", "val")
    },
    "network_g": {"type": "paragonsr2_nano"},
    "train": {
        "total_iter": 1000,
        "optim_g": {"type": "AdamW", "lr": 1e-4},
        "losses": [{"type": "l1loss", "loss_weight": 1.0}],
    },
    "val": {
        "val_enabled": True,
        "val_freq": 100,
        "save_img": False,
        "metrics_enabled": True,
        "metrics": {"psnr": {"type": "psnr"}},
    },
    "logger": {"print_freq": 100, "save_checkpoint_freq": 100, "use_tb_logger": True},
}
BASE["datasets"]["train"] |= {"lq_size": 16, "batch_size_per_gpu": 1}
YAML = [(path, text) for path in FILES for text in blocks(path, "yaml")]


def loaded(text: str, folder: Path) -> Any:
    values = copy.deepcopy(BASE)
    for section, content in yaml.safe_load(text).items():
        values[section] = {**values.get(section, {}), **content}
    file = folder / "options.yml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    options = load_options(file)
    assert options.train is not None
    return options.train.training_automations


@pytest.mark.parametrize(("path", "text"), YAML, ids=[f"{path.stem}-{number}" for number, (path, _) in enumerate(YAML)])
def test_yaml_loads(path: Path, text: str, tmp_path: Path) -> None:
    assert loaded(text, tmp_path).written


def test_the_overview_switches_all_on_and_all_off(tmp_path: Path) -> None:
    on, at_top_level, off = (loaded(text, tmp_path) for text in blocks(OVERVIEW, "yaml"))
    assert set(on.active) == set(TYPES)
    assert set(at_top_level.active) == {"intelligent_learning_rate_scheduler", "intelligent_early_stopping"}
    assert off.active == {}


def test_the_line_of_the_journal_is_one() -> None:
    (text,) = blocks(OVERVIEW, "json")
    assert set(json.loads(text)) == {"iteration", "automation", "what", "from", "to", "reason", "text", "evidence"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text)
    assert targets
    for name, anchor in targets:
        target = (path.parent / name) if name else path
        assert target.exists(), name
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in [title.lower().replace(" ", "-") for title in titles], anchor


def test_the_slips_of_other_guides_are_not_repeated() -> None:
    text = OVERVIEW.read_text(encoding="utf-8")
    everything = "".join(path.read_text(encoding="utf-8") for path in FILES)
    assert "*lower* `min_improvement`" in text
    assert "*smaller* `logger.print_freq`" in text
    assert re.findall(r"success rate|\d\d ?% (?:faster|success)|\+0\.2", everything) == []


@pytest.mark.parametrize("key", TYPES)
def test_a_page_shows_its_figure_which_is_small(key: str) -> None:
    (target,) = re.findall(r"^!\[.+\]\((.+\.png)\)$", page(key), flags=re.MULTILINE)
    path = (DOCS / "automations" / target).resolve()
    assert path.parent == DOCS / "figures"
    assert 10_000 < path.stat().st_size < 150_000
    assert f"docs/figures/automations.py {path.stem.removeprefix('automation_')}" in page(key).replace("\n", " ")


def test_the_runs_of_the_figures_can_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has one automation, and there is one for every automation."""
    monkeypatch.syspath_prepend(DOCS / "figures")
    figures = importlib.import_module("automations")
    keys: list[str] = []
    for run in figures.RUNS.values():
        file = tmp_path / "options.yml"
        file.write_text(yaml.safe_dump(figures.options(run, tmp_path, tmp_path)), encoding="utf-8")
        options = load_options(file)
        assert options.train is not None
        keys += options.train.training_automations.active
    assert sorted(keys) == sorted(TYPES)
    assert list(figures.RUNS) == list(figures.DRAWINGS)
