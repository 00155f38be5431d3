"""The example files of the loss scheduler: as they are they pass the check; shortened they train and move weight."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from traiNNer.cli import ending_with_message, parse_train
from traiNNer.run import train

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "options" / "examples" / "loss_scheduler"
EXAMPLES = sorted(FOLDER.glob("*.yml"))
NAMES = [path.stem for path in EXAMPLES]

EAGER = {
    "patience": 1,
    "min_delta": 1000.0,  # nothing is an improvement
    "threshold_mode": "abs",
    "min_observations_before_adapt": 0,
    "warmup_observations": 0,
}
"""The first observation is the best, the second moves."""

ENDS: dict[str, dict[str, tuple[float, float]]] = {
    "l1_to_spectrum": {"l1loss": (1.0, 0.3), "spectrumerrorloss": (0.0, 0.21)},
    "field_to_spectrum": {
        "fielderrorloss": (1.0, 0.3),
        "spectrumerrorloss": (0.0, 0.21),
        "colour": (0.1, 0.1),
        "colour_lightness": (0.1, 0.03),
        "colour_hue": (0.05, 0.05),
    },
    "two_schedulers": {
        "l1loss": (0.9, 0.4),
        "mssimloss": (0.02, 0.12),
        "averageloss": (0.2, 0.0),
        "ffloss": (0.0, 0.2),
    },
}
"""Each example's weights in the total before and after the move."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `datasets/sample` is what scripts/prepare_sample.py makes."""
    path = ROOT / "scripts" / "prepare_sample.py"
    spec = importlib.util.spec_from_file_location("prepare_sample_of_examples", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("examples")
    module.prepare(folder / "datasets" / "sample")
    return folder


def run(file: Path, *arguments: str) -> int:
    return ending_with_message(lambda: train(parse_train([str(file), *arguments])))


def shortened(example: Path) -> dict[str, Any]:
    """Four iterations of a small network, a validation in each; every move is made in one step."""
    values = yaml.safe_load(example.read_text(encoding="utf-8"))
    values |= {"num_gpu": 0, "network_g": {"type": "ParagonSR2", "num_feat": 8, "num_groups": 1, "num_blocks": 1}}
    for data in values["datasets"].values():
        data["num_worker_per_gpu"] = 0
    values["datasets"]["train"]["batch_size_per_gpu"] = 2
    values["train"]["total_iter"] = 4
    schedulers = values["train"]["loss_scheduler"]
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if scheduler.get("adaptation_trigger") != "iteration":
            scheduler |= {**EAGER, "transition_step": 1.0, "adaptive_step": False}
    values["val"]["val_freq"] = 1
    values["logger"]["print_freq"] = 1
    return values


def test_there_are_three_of_them_and_the_readme_explains_each() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sorted(ENDS) == NAMES
    assert [name for name in NAMES if f"`{name}.yml`" not in text] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_it_passes_the_check(
    example: Path, sample: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sample)
    assert run(example, "--check") == 0
    told = capfd.readouterr().err
    assert "no mistakes found" in told
    assert "the whole move takes at least" not in told  # the run is long enough for it
    assert "NOTICE" not in told.upper()
    assert not (sample / "experiments").exists()


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_it_trains_and_moves(example: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = shortened(example)
    values["path"] = {"experiments_root": str(tmp_path)}
    file = tmp_path / "options.yml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(sample)
    assert run(file) == 0
    events = EventAccumulator(str(tmp_path / values["name"] / "tb_logger"))
    events.Reload()
    weights = {
        tag.partition("/")[2]: [events.Scalars(tag)[0].value, events.Scalars(tag)[-1].value]
        for tag in events.Tags()["scalars"]
        if tag.startswith("loss_weight/")
    }
    assert weights == {label: pytest.approx(ends, abs=1e-6) for label, ends in ENDS[example.stem].items()}
