"""What a good file becomes: complete, typed, frozen options that remember where they came from."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from pydantic import Field, ValidationError

from traiNNer.config import load_options, run_paths
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import LOSSES, NETWORKS

from .conftest import GOOD, change, registered


def test_values_and_defaults(load) -> None:
    options = load(GOOD)

    assert (options.name, options.scale, options.manual_seed, options.use_channels_last) == ("tiny", 2, 7, True)
    assert options.compile_mode == "max-autotune-no-cudagraphs"
    assert dict(options.network_g) == {"type": "ConfigTestNet", "scale": 2, "features": 8, "act": "relu"}
    assert options.train.total_iter == 2000
    assert (options.train.ema_power, options.train.grad_clip_max_norm, options.train.warmup_iter) == (10.0, 100.0, -1)
    assert dict(options.train.optim_g) == {"type": "ConfigTestOptimizer", "lr": 2e-4, "betas": (0.9, 0.99)}
    assert dict(options.train.scheduler) == {"type": "ConfigTestScheduler", "milestones": [1000, 1500], "gamma": 0.1}
    assert options.datasets["train"].batch_size_per_gpu == 4
    assert options.datasets["train"].prefetch_factor == 2
    assert options.datasets["train"].component["gt_size"] == 32
    assert options.datasets["val"].component["phase"] == "val"
    assert options.datasets["val"].component["scale"] == 2
    assert options.logger.save_checkpoint_format == "safetensors"
    assert options.notices == []
    assert options.text == GOOD
    assert options.file.endswith("x.yml")


def test_builders_take_the_sections_as_they_are(load) -> None:
    options = load(GOOD)

    assert NETWORKS.build(options.network_g) is None
    assert LOSSES.build(options.train.losses[0].component).reduction == "mean"


def test_options_do_not_change(load) -> None:
    options = load(GOOD)

    with pytest.raises(ValidationError):
        options.scale = 4
    with pytest.raises(ValidationError):
        options.train.total_iter = 1
    with pytest.raises(TypeError):
        options.network_g["features"] = 1
    with pytest.raises(TypeError):
        options.datasets["more"] = options.datasets["val"]
    options.train.scheduler["milestones"].append(5)
    options.dump()["train"]["losses"].clear()
    assert options.train.scheduler["milestones"] == [1000, 1500]
    assert len(options.train.losses) == 1


def test_the_dump_is_plain_and_loads_to_itself(load) -> None:
    dumped = load(GOOD).dump()

    again = load(yaml.safe_dump(json.loads(json.dumps(dumped))))

    assert again.dump() == dumped
    assert dumped["datasets"]["train"]["type"] == "ConfigTestDataset"
    assert dumped["train"]["losses"] == [
        {"type": "configtestloss", "loss_weight": 1.0, "name": "configtestloss", "reduction": "mean"}
    ]


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("datasets.train.dataroot_gt", "9: datasets.train.dataroot_gt"),
        ("datasets.val.dataroot_gt[1]", "16: datasets.val.dataroot_gt[1]"),
        ("train.losses[0].type", "30: train.losses[0].type"),
        ("train.losses[0].reduction", "30: train.losses[0].reduction"),
        ("path.resume_state", "1: path.resume_state"),
        ("val.metrics.config_test_metric.better", "39: val.metrics.config_test_metric.better"),
        ("num_gpu", "3: num_gpu"),
    ],
)
def test_later_checks_find_file_and_line(load, key: str, place: str) -> None:
    problem = load(GOOD).problem(key, "found nothing there; accepted: a folder")

    assert str(problem).endswith(f"x.yml:{place}: found nothing there; accepted: a folder")


def test_labels_of_losses(load) -> None:
    entry = "\n    - {type: config_test, loss_weight: 1}"
    text = change(
        "      loss_weight: 1.0", f"      loss_weight: 1.0{entry}{entry.replace('1}', '1, name: mine}')}{entry}"
    )

    assert [loss["name"] for loss in load(text).train.losses] == [
        "configtestloss",
        "configtestloss_2",
        "mine",
        "configtestloss_3",
    ]


def test_metrics_need_no_type_and_may_have_the_names_of_basicsr(load) -> None:
    text = change(
        "    config_test_metric:\n      better: higher",
        "    mine: {type: calculate_config_test_metric_pt}\n    config_test_metric:",
    )

    metrics = load(text).val.metrics

    assert [(label, metric.type) for label, metric in metrics.items()] == [
        ("mine", "config_test_metric"),
        ("config_test_metric", "config_test_metric"),
    ]


@pytest.mark.parametrize("written", ["2000", "2e3", "!!float 2e3", "2k", "2.0K", '"2k"'])
def test_iterations_as_users_write_them(load, written: str) -> None:
    assert load(change("total_iter: 2000", f"total_iter: {written}")).train.total_iter == 2000


def test_a_new_component_is_checked_by_its_signature_alone(load, mistakes) -> None:
    def brand_new(*, depth: Annotated[int, Field(ge=1)], scale: int, window: tuple[int, int] = (8, 8)) -> None: ...

    text = change("  type: ConfigTestNet\n  features: 8", "  type: Brand_New\n  dept: 3\n  window: [4, x]")
    with registered(NETWORKS, "brandnew", brand_new):
        assert mistakes(text) == [
            "x.yml:19: network_g.dept: unknown key; accepted: depth, scale, type, window (did you mean depth?)",
            "x.yml:20: network_g.window[1]: found 'x'; accepted: a whole number",
        ]
        network = load(text.replace("dept:", "depth:").replace("x]", "6]")).network_g
        assert dict(network) == {"type": "brandnew", "depth": 3, "scale": 2, "window": (4, 6)}


def test_the_command_line_wins(load) -> None:
    overrides = {"name": "other", "manual_seed": None, "auto_resume": True, "path.resume_state": "a.state"}
    options = load(GOOD, overrides=overrides)

    assert (options.name, options.manual_seed, options.auto_resume) == ("other", 7, True)
    assert options.path.resume_state == "a.state"
    assert str(options.problem("path.resume_state", "gone; accepted: a file")) == (
        "command line: path.resume_state: gone; accepted: a file"
    )


def test_mistakes_of_the_command_line_are_said_to_be_there(mistakes) -> None:
    assert mistakes(GOOD, overrides={"manual_seed": -1}) == [
        "command line: manual_seed: found -1; accepted: at least 0"
    ]


def test_a_debug_run(load) -> None:
    options = load(GOOD, overrides={"debug": True})

    assert options.name == "debug_tiny"
    assert (options.val.val_freq, options.logger.print_freq, options.logger.save_checkpoint_freq) == (8, 1, 8)
    assert any("debug run: val.val_freq 8, logger.print_freq 1" in notice for notice in options.notices)
    assert load(GOOD, overrides={"debug": False}).logger.print_freq == 10
    assert load(GOOD, overrides={"debug": True, "name": "debug_x"}).name == "debug_x"


def test_where_a_run_writes(load) -> None:
    paths = run_paths(load(GOOD))
    assert paths.experiment == Path("experiments/tiny")
    assert (paths.models, paths.log) == (Path("experiments/tiny/models"), Path("experiments/tiny"))
    assert paths.results == Path("results/tiny")

    own = "path: {experiments_root: out/tiny, models: w, resume_models: w, training_states: s, log: l, results_root: r}"
    paths = run_paths(load(change("num_gpu: 0", own)))
    assert paths.experiment == Path("out/tiny")
    assert (paths.models, paths.resume_models, paths.training_states) == (Path("w"), Path("w"), Path("s"))
    assert (paths.log, paths.visualization, paths.results) == (
        Path("l"),
        Path("out/tiny/visualization"),
        Path("r/tiny"),
    )


def test_a_file_for_testing_needs_nothing_to_train_with(load) -> None:
    text = (
        "name: t\nscale: 2\nnetwork_g: {type: ConfigTestNet}\n"
        "datasets:\n  test_1: {type: ConfigTestDataset, dataroot_gt: x}\n"
        "val: {val_enabled: true, save_img: true}\n"
    )

    options = load(text)

    assert (options.train, options.logger) == (None, None)
    assert options.datasets["test_1"].component["phase"] == "test"
    assert options.datasets["test_1"].name == "test_1"
    with pytest.raises(ConfigError, match=r"train: required key is missing"):
        load(text, purpose="train")


def test_options_without_effect_are_noticed(load) -> None:
    text = change("num_gpu: 0", "amp_bf16: true")
    text = change("    batch_size_per_gpu: 4\n", "    batch_size_per_gpu: 4\n    num_prefetch_queue: 1\n", text)
    text = change(
        "  total_iter: 2000", "  total_iter: 2000\n  use_moa: false\n  moa_probs: [1.0]\n  eco: {enabled: false}", text
    )

    found = [notice.partition("x.yml:")[2] for notice in load(text).notices]

    assert found == [
        "3: amp_bf16: has no effect without use_amp",
        "13: datasets.train.num_prefetch_queue: not supported yet; switched off here, so it is left out",
        "23: train.use_moa: not supported yet; switched off here, so it is left out",
        "24: train.moa_probs: not supported yet; switched off here, so it is left out",
        "25: train.eco: not supported yet; switched off here, so it is left out",
    ]


def test_loading_is_cheap(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text(GOOD, encoding="utf-8")
    load_options(path)

    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        load_options(path)
        seconds.append(time.perf_counter() - start)

    assert min(seconds) < 0.15
