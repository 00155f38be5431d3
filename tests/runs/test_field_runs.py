"""Training on fields: channels follow the data, one normalization everywhere, results in the files' units."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scripts.generate_turbulence import main as generate
from scripts.upscale import main as upscale
from traiNNer.cli import ending_with_message
from traiNNer.evaluation import evaluate
from traiNNer.field_checks import check_channels
from traiNNer.losses import build_loss
from traiNNer.losses.base import total
from traiNNer.losses.term import Term
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import LOSSES, METRICS
from traiNNer.validation import bicubic

Run = Callable[..., int]
ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "options" / "train" / "fields" / "2x_turbulence_field_to_spectrum.yml"
MEANS, DEVIATIONS = np.array([50.0, -3.0]), np.array([4.0, 0.5])


@METRICS.register("rootmeansquare")
class RootMeanSquare:
    """The root of the mean square of output - target, in the units that it is given; for these tests.

    Shapes: (1, C, H, W). Range: [0, inf). Reference: none.

    ```yaml
    rootmeansquare: {type: rootmeansquare}
    ```
    """

    better = "lower"
    minimum = 1

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> float:
        return (output - target).square().mean().sqrt().item()

    def describe(self) -> str:
        return "root mean square"


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for phase, count in (("train", 4), ("val", 2)):
        for kind in ("gt", "lq"):
            (tmp_path / phase / kind).mkdir(parents=True)
        for number in range(count):
            smooth = cv2.GaussianBlur(rng.normal(size=(32, 32, 2)), (0, 0), 2).transpose(2, 0, 1)
            gt = smooth / smooth.std() * DEVIATIONS[:, None, None] + MEANS[:, None, None]
            np.save(tmp_path / phase / "gt" / f"{number}.npy", gt)
            np.save(tmp_path / phase / "lq" / f"{number}.npy", gt.reshape(2, 16, 2, 16, 2).mean((2, 4)))
    return tmp_path


@pytest.fixture
def field_options(options: dict[str, Any], fields: Path) -> dict[str, Any]:
    for phase in ("train", "val"):
        section = options["datasets"][phase]
        section["type"] = "PairedArrayDataset"
        section |= {f"dataroot_{kind}": str(fields / phase / kind) for kind in ("gt", "lq")}
    options["datasets"]["train"] |= {
        "gt_size": 16,
        "normalization": "training",
        "use_hflip": True,
        "use_rot": True,
        "vector_channels": [0, 1],
    }
    options["val"]["metrics"] = {"rms": {"type": "rootmeansquare"}}
    options["val"]["save_img"] = True
    return options


def weights(tmp_path: Path, name: str, iteration: int = 8) -> dict[str, torch.Tensor]:
    return load_file(tmp_path / "experiments" / name / "resume_models" / f"net_g_{iteration}.safetensors")


def normalization(tmp_path: Path, name: str, iteration: int) -> str:
    file = tmp_path / "experiments" / name / "models" / f"net_g_{iteration}.safetensors"
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()["normalization"]


def test_a_run_resumes_exactly_with_the_normalization_that_it_began_with(
    field_options: dict[str, Any], run_training: Run, tmp_path: Path, fields: Path
) -> None:
    field_options["train"]["scheduler"] = {"type": "ConstantLR", "factor": 1.0}
    assert run_training(field_options | {"name": "straight"}) == 0
    field_options["name"] = "resumed"
    field_options["train"]["total_iter"] = 4
    assert run_training(field_options) == 0
    field_options["train"]["total_iter"] = 8
    assert run_training(field_options, "--auto_resume") == 0
    one, other = weights(tmp_path, "straight"), weights(tmp_path, "resumed")
    assert all(torch.equal(one[name], other[name]) for name in one)
    for path in (fields / "train").rglob("*.npy"):
        np.save(path, np.load(path) + 1)
    field_options["train"]["total_iter"] = 9
    assert run_training(field_options, "--auto_resume") == 0
    assert normalization(tmp_path, "resumed", 9) == normalization(tmp_path, "straight", 8)


def test_metrics_and_results_are_in_the_units_of_the_files(
    field_options: dict[str, Any], run_training: Run, tmp_path: Path, fields: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "traiNNer")
    assert run_training(field_options) == 0
    run = tmp_path / "experiments" / "tiny"
    result = np.load(run / "visualization" / "val" / "0" / "0_8.npy")
    gt = _all(fields, "gt")
    results = np.stack([np.load(run / "visualization" / "val" / str(n) / f"{n}_8.npy") for n in range(2)])
    measured = np.mean([np.sqrt(np.square(results[n] - gt[n]).mean()) for n in range(2)])
    text = (run / "train.log").read_text()
    assert f"rms {measured:.4f}" in text
    enlarged = bicubic(torch.from_numpy(_all(fields, "lq")), 2, clamp=False).numpy()
    assert f"bicubic {np.sqrt(np.square(enlarged - gt).mean((1, 2, 3))).mean():.4f}" in text
    assert result.shape == (2, 32, 32)
    picture = cv2.imread(str(run / "visualization" / "val" / "0" / "0_8_compare.png"))
    assert picture.shape[0] > 2 * 192  # a row for each channel
    assert picture.shape[1] > 5 * 192
    with safe_open(run / "models" / "net_g_ema_latest.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert '"mean": [' in metadata["normalization"]
    assert '"in_chans": 2' in metadata["parameters"]
    # upscale.py and test.py give what the validation gave
    assert upscale(["--weights", str(run / "models" / "net_g_ema_latest.safetensors"), *_io(fields, tmp_path)]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "up" / "0.npy"), result, rtol=1e-5)
    assert _test(field_options, run, tmp_path) == 0
    (log,) = (tmp_path / "results").rglob("test.log")
    assert f"rms {measured:.4f}" in log.read_text()
    assert np.allclose(np.load(next((tmp_path / "results").rglob("0_tested.npy"))), result, rtol=1e-5)


def _all(fields: Path, kind: str) -> np.ndarray:
    return np.stack([np.load(fields / "val" / kind / f"{number}.npy") for number in range(2)])


def _io(fields: Path, tmp_path: Path) -> list[str]:
    return [str(fields / "val" / "lq"), str(tmp_path / "up")]


def _test(options: dict[str, Any], run: Path, tmp_path: Path, more: dict[str, Any] | None = None) -> int:
    values = {
        "name": "tested",
        "scale": 2,
        "num_gpu": 0,
        "network_g": options["network_g"],
        "datasets": {"test": options["datasets"]["val"], **(more or {})},
        "path": {
            "pretrain_network_g": str(run / "models" / "net_g_ema_latest.safetensors"),
            "results_root": str(tmp_path / "results"),
        },
        "val": {
            "val_enabled": True,
            "metrics_enabled": True,
            "metrics": {"rms": {"type": "rootmeansquare"}},
            "save_img": True,
        },
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(values))
    return ending_with_message(lambda: evaluate(tmp_path / "test.yml"))


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (
            {"network_g": {"type": "ParagonSR2", "num_feat": 8, "in_chans": 3}},
            ["network_g.in_chans: found 3, but the data (tiles) has 2 channels; accepted: 2, or leaving it out"],
        ),
        (
            {"network_g": {"type": "safmn", "dim": 8, "n_blocks": 2}},
            ["found safmn with 3 input and 3 output channels; accepted: 2 and 2, the data's"],
        ),
        (
            {"losses": [{"type": "lumaloss", "loss_weight": 1}, {"type": "ssimloss", "loss_weight": 1}]},
            [
                "train.losses[0]: found lumaloss, which compares RGB images, but the data are fields",
                "train.losses[1]: found ssimloss, which compares RGB images",
            ],
        ),
        ({"losses": [{"type": "l1loss", "loss_weight": -1.0}]}, ["found a negative weight"]),
        ({"metrics": {"psnr": {"type": "psnr"}}}, ["val.metrics.psnr: found PSNR in dB", "the data are fields"]),
    ],
    ids=["channels", "fixed channels", "losses", "negative weight", "metric"],
)
def test_what_does_not_go_with_fields_is_a_message(
    change: dict[str, Any],
    texts: list[str],
    field_options: dict[str, Any],
    run_training: Run,
    capfd: pytest.CaptureFixture[str],
) -> None:
    field_options["network_g"] = change.get("network_g", field_options["network_g"])
    field_options["train"]["losses"] = change.get("losses", field_options["train"]["losses"])
    field_options["val"]["metrics"] = change.get("metrics", field_options["val"]["metrics"])
    assert run_training(field_options) == 2
    message = capfd.readouterr().err
    assert "Traceback" not in message
    assert "options.yml:" in message
    for text in texts:
        assert text in message


LEVELS = {"ssimloss": {"test_y_channel": False}, "mssimloss": {"test_y_channel": False}, "psnrloss": {}}
LEVELS |= {"msssiml1loss": {}, "chcloss": {}, "hsluvloss": {}, "colorloss": {}, "consistencyloss": {}, "lumaloss": {}}


@pytest.mark.parametrize("name", LEVELS)
def test_losses_of_levels_and_colours_are_none_for_fields_of_three_channels(name: str) -> None:
    term = Term(name, build_loss({"type": name, "loss_weight": 1.0, **LEVELS[name]}))
    with pytest.raises(ConfigError, match=f"found {name}, which compares .*images.*, but the data are fields"):
        check_channels(term, 3)


def test_mistakes_do_not_follow_from_damaged_training_fields(
    field_options: dict[str, Any], run_training: Run, fields: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (fields / "train" / "gt").glob("*.npy"):
        path.write_bytes(b"text")
    field_options["network_g"]["in_chans"] = 2
    assert run_training(field_options) == 2
    message = capfd.readouterr().err
    assert message.count("options.yml:") == 1
    assert "4 problems with the files" in message


def test_a_resumed_run_says_that_it_keeps_its_normalization(
    field_options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    section = field_options["datasets"]["train"]
    field_options["val"]["save_img"] = False
    field_options["train"]["total_iter"] = 1
    assert run_training(field_options) == 0
    before = normalization(tmp_path, "tiny", 1)
    for iteration, changed in ((2, "none"), (3, {"mean": [0.0, 0.0], "std": [1.0, 2.0]})):
        section["normalization"] = changed
        field_options["train"]["total_iter"] = iteration
        assert run_training(field_options, "--auto_resume") == 0
        assert normalization(tmp_path, "tiny", iteration) == before
        text = (tmp_path / "experiments" / "tiny" / "train.log").read_text()
        line = f"normalization: found {changed}, but the run that is resumed keeps its numbers: fields of mean 49.98"
        assert text.count(line) == 1
    # weights of another normalization are taken, with a line
    field_options |= {"name": "other"}
    field_options["train"]["total_iter"] = 1
    file = tmp_path / "experiments" / "tiny" / "models" / "net_g_3.safetensors"
    field_options["path"] = field_options.get("path", {}) | {"pretrain_network_g": str(file)}
    assert run_training(field_options) == 0
    text = (tmp_path / "experiments" / "other" / "train.log").read_text()
    assert f"{file} was trained on fields of mean 49.98" in text
    assert "this run is on fields of mean 0 0, std 1 2" in text


def test_weights_are_tested_on_what_they_were_trained_on(
    field_options: dict[str, Any],
    run_training: Run,
    tmp_path: Path,
    photos: Path,
    fields: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    images = {"type": "PairedImageDataset", "dataroot_gt": str(photos / "gt"), "dataroot_lq": str(photos / "lq")}
    for path in fields.rglob("*.npy"):
        array = np.load(path)
        np.save(path, np.concatenate([array, array[:1]]))
    field_options["train"]["total_iter"] = 1
    assert run_training(field_options) == 0
    run = tmp_path / "experiments" / "tiny"
    capfd.readouterr()

    def refused(section: dict[str, Any], text: str) -> None:
        options = field_options | {"datasets": {"val": field_options["datasets"]["val"] | section}}
        assert _test(options, run, tmp_path) == 2
        message = capfd.readouterr().err
        assert text in message
        assert message.count("test.yml:") == 1, message

    refused(images, "trained on fields, but the data (held out) holds images; accepted: weights of images")
    for path in fields.rglob("*.npy"):
        np.save(path, np.load(path)[:1])
    refused({}, "of a network that takes 3 channels, but the data (held out) has 1")
    for path in fields.rglob("*.npy"):
        np.save(path, np.load(path)[[0, 0, 0]])
    file = run / "models" / "net_g_ema_latest.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = {name: value for name, value in opened.metadata().items() if name != "normalization"}
    save_file(load_file(file), file, metadata)
    assert upscale(["--weights", str(file), *_io(fields, tmp_path)]) == 2
    assert "trained on images; accepted for INPUT: images, not .npy" in capfd.readouterr().err
    refused({}, "trained on images, but the data (held out) holds fields; accepted: weights of fields")
    save_file(load_file(file), file)  # says nothing
    more = {"test_2": field_options["datasets"]["val"] | images | {"name": "photos"}}
    assert _test(field_options, run, tmp_path, more) == 2
    assert "datasets.test_2: found images, but the first test set holds fields" in capfd.readouterr().err


def test_validation_sets_are_of_the_training_sets_kind(
    field_options: dict[str, Any], run_training: Run, photos: Path, fields: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (fields / "val").rglob("*.npy"):
        np.save(path, np.load(path)[:1])
    assert run_training(field_options) == 2
    assert "datasets.val: found 1 channels, but the training set has 2; accepted: the same" in capfd.readouterr().err
    images = {"type": "PairedImageDataset", "dataroot_gt": str(photos / "gt"), "dataroot_lq": str(photos / "lq")}
    field_options["datasets"]["val"] |= images
    assert run_training(field_options) == 2
    assert "datasets.val: found images, but the training set holds fields" in capfd.readouterr().err


def test_images_are_no_input_for_weights_of_fields(
    field_options: dict[str, Any], run_training: Run, tmp_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    field_options["train"]["total_iter"] = 1
    assert run_training(field_options) == 0
    file = str(tmp_path / "experiments" / "tiny" / "models" / "net_g_latest.safetensors")
    assert upscale(["--weights", file, str(photos / "lq"), str(tmp_path / "up")]) == 2
    assert "trained on fields; accepted for INPUT: .npy" in capfd.readouterr().err
    (tmp_path / "packed.npz").touch()
    assert upscale(["--weights", file, str(tmp_path / "packed.npz"), str(tmp_path / "up")]) == 2
    assert "packed.npz; accepted: .npy, into which its array must be saved" in capfd.readouterr().err
    np.save(tmp_path / "three.npy", np.zeros((3, 8, 8)))
    assert upscale(["--weights", file, str(tmp_path / "three.npy"), str(tmp_path / "up.npy")]) == 1
    assert "has the shape (3, 8, 8); accepted: (C, H, W) or (T, C, H, W) with C = 2" in capfd.readouterr().err


def test_the_turbulence_example_moves_from_field_error_to_spectrum_error(
    run_training: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load(EXAMPLE.read_text())
    monkeypatch.chdir(tmp_path)
    generate(["datasets/turbulence", "--lq", "cutoff", "--train", "4", "--val", "1"])
    values |= {"num_gpu": 0}
    values["network_g"] |= {"num_feat": 8, "num_blocks": 1}
    values["datasets"]["train"]["num_worker_per_gpu"] = values["datasets"]["val"]["num_worker_per_gpu"] = 0
    values["train"] |= {"total_iter": 5, "warmup_iter": -1}
    values["train"]["loss_scheduler"]["schedule"] = [[2, 0.0], [4, 1.0]]
    values["val"]["val_freq"] = values["logger"]["print_freq"] = 1
    values["logger"] |= {"save_checkpoint_freq": 5, "use_tb_logger": False}
    assert run_training(values) == 0
    run = tmp_path / "experiments" / values["name"]
    text = (run / "train.log").read_text()
    assert "raps_distance" in text
    assert "from fielderrorloss to spectrumerrorloss" in text
    assert len(list((run / "visualization").rglob("*_5.npy"))) == 1
    with safe_open(run / "models" / "net_g_latest.safetensors", framework="pt") as file:
        assert '"in_chans": 2' in file.metadata()["parameters"]


def test_losses_that_do_not_mean_rgb_take_any_channels() -> None:
    """What a loss says of its channels is true: those that say nothing compare fields of 2 channels."""
    refused = []
    for name in LOSSES.names():
        if getattr(LOSSES.get(name), "channels", None) == 3:
            continue
        term = Term(name, build_loss({"type": name, "loss_weight": 1.0}))
        if term.loss.channels == 3 or not term.needs <= {"output", "target"}:
            continue
        try:
            value = total(term.loss(**{each: torch.rand(1, 2, 64, 64) for each in term.needs}))
            refused += [] if value.isfinite() else [name]
        except (RuntimeError, ValueError, IndexError):
            refused.append(name)
    assert refused == []
