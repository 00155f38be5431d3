"""The pages about loss schedulers: their code runs, their YAML loads, their table is right, their links lead on."""

from __future__ import annotations

import copy
import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from traiNNer.cli import parse_train
from traiNNer.config import load_options
from traiNNer.losses.flexible_loss_scheduler import SchedulerParams

ROOT = Path(__file__).resolve().parent.parent
CELL = ROOT / "docs" / "colab" / "flexible_scheduler_demo_cell.py"
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (
        ROOT / "docs" / "loss-scheduler.md",
        ROOT / "docs" / "quickstart_scheduler.md",
        ROOT / "docs" / "backward_compatibility.md",
        ROOT / "options" / "examples" / "loss_scheduler" / "README.md",
    )
}


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", PAGES[page].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for name, text in found if name == language]


def execute(page: str) -> dict[str, Any]:
    """Run a page's Python blocks, one after the other, as a reader would; what they have defined."""
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    return names


def test_the_loop_of_the_quickstart_adapts(capsys: pytest.CaptureFixture[str]) -> None:
    names = execute("docs/quickstart_scheduler.md")
    adaptations = names["adaptations"]
    assert len(adaptations) >= 3
    assert adaptations[-1].weight_target > adaptations[0].weight_target > 0
    assert capsys.readouterr().out.count("plateau in target_loss") == len(adaptations)
    json.dumps(names["checkpoint"])
    assert names["resumed"].state_dict() == names["scheduler"].state_dict()


def test_the_other_python_blocks_run() -> None:
    first = execute("docs/loss-scheduler.md")["adaptation"]
    assert first is None or first.progress > 0
    assert execute("docs/backward_compatibility.md")["scheduler"].params.min_observations_before_adapt == 10


BASE: dict[str, Any] = {
    "name": "page",
    "scale": 2,
    "datasets": {
        key: {"name": key, "type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq"}
        for key in ("train", "val")
    },
    "network_g": {"type": "paragonsr2_nano"},
    "train": {
        "total_iter": 1000,
        "optim_g": {"type": "AdamW", "lr": 1e-4},
        "losses": [{"type": "l1loss", "loss_weight": 1.0}, {"type": "spectrumerrorloss", "loss_weight": 1.0}],
    },
    "val": {"val_enabled": True, "val_freq": 100, "save_img": False},
    "logger": {"print_freq": 100, "save_checkpoint_freq": 100, "use_tb_logger": True},
}
BASE["datasets"]["train"] |= {"lq_size": 16, "batch_size_per_gpu": 1}
YAML = [(page, number, text) for page in PAGES for number, text in enumerate(blocks(page, "yaml"))]
LEGACY = "recMSE, predMSE is read as fielderrorloss, the field error"


@pytest.mark.parametrize(("page", "number", "text"), YAML, ids=[f"{page}-{number}" for page, number, _ in YAML])
def test_yaml_loads(page: str, number: int, text: str, tmp_path: Path) -> None:
    values = copy.deepcopy(BASE)
    for section, content in yaml.safe_load(text).items():
        values[section] = {**values.get(section, {}), **content}
    file = tmp_path / f"{number}.yml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    options = load_options(file)
    assert options.train is not None
    assert bool(options.train.loss_scheduler) is ("loss_scheduler" in text)
    assert [LEGACY in notice for notice in options.notices] == [True] * text.count("recMSE"), page


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_there_is(page: str) -> None:
    """Every program and option file of a command exists, and train.py understands its arguments."""
    lines = [line for block in blocks(page, "bash") + blocks(page, "") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if re.search(r"\bpython ", line)]
    for words in commands:
        for word in words:
            if word.endswith((".py", ".yml", ".md")):
                assert (ROOT / word).is_file(), word
        if "train.py" in words:
            assert parse_train(words[words.index("train.py") + 1 :]).option_file.suffix == ".yml"
    assert commands or page in ("docs/loss-scheduler.md", "docs/backward_compatibility.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page].read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (PAGES[page].parent / target).exists()] == []


def test_the_table_has_every_option_and_its_default() -> None:
    text = PAGES["docs/loss-scheduler.md"].read_text(encoding="utf-8")
    table = text.partition("## Options")[2].partition("\n## ")[0]
    written = {
        key: default
        for names, default in re.findall(r"^\| (`.*?) \| (.*?) \|", table, flags=re.MULTILINE)
        for key in re.findall(r"`(\w+)`", names)
    }
    assert sorted(written) == sorted(SchedulerParams.model_fields)
    for key, field in SchedulerParams.model_fields.items():
        if field.is_required():
            assert written[key] == "required"
        else:
            default = field.get_default(call_default_factory=True)
            assert written[key] == ("none" if default is None else f"`{json.dumps(default).strip(chr(34))}`"), key


def test_the_figure_is_there_and_small() -> None:
    assert 10_000 < (ROOT / "docs" / "figures" / "loss_scheduler.png").stat().st_size < 200_000


def test_the_cell_trains_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is pasted, but shorter; the repository is there, so it is not cloned."""
    text = CELL.read_text(encoding="utf-8")
    for long, short in (
        ("TOTAL_ITER = 750", "TOTAL_ITER = 10"),
        ("VAL_FREQ = 15", "VAL_FREQ = 2"),
        ("min_delta: 0.02", "min_delta: 0.9"),
    ):
        assert long in text
        text = text.replace(long, short)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, str(CELL), "exec"), {"__name__": "__main__"})
    assert (tmp_path / "scheduler_demo" / "loss_scheduler.png").stat().st_size > 10_000
    events = EventAccumulator(str(tmp_path / "scheduler_demo" / "l1_to_spectrum" / "tb_logger"))
    events.Reload()
    assert [point.step for point in events.Scalars("loss_scheduler/progress")] == [2, 4, 6, 8, 10]
    assert events.Scalars("loss_scheduler/progress")[-1].value > 0


def test_the_cell_asks_for_the_address_where_it_has_to_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="REPOSITORY"):
        exec(compile(CELL.read_text(encoding="utf-8"), str(CELL), "exec"), {"__name__": "__main__"})
    assert list(tmp_path.iterdir()) == []
