"""scripts/upscale.py on real files: every kind of image, sub-folders, mistakes and files that cannot be read."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from traiNNer.archs import build_network
from traiNNer.inference import upscale
from traiNNer.utils.images import read_image, to_float
from traiNNer.utils.weights import network_metadata

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("upscale_script", ROOT / "scripts" / "upscale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """ParagonSR2 nano, its factors moved away from 1e-5 so that every layer counts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network({"type": "paragonsr2_nano", "scale": 2}).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
    return network


@pytest.fixture(scope="module")
def weights(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net_g_latest.safetensors"
    tensors = {name: value.contiguous() for name, value in net.state_dict().items()}
    save_file(tensors, path, metadata=network_metadata(net.network_info, 100))
    return path


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    planes = [np.asarray(Image.fromarray(coarse[..., c]).resize((width, height))) for c in range(channels)]
    return np.stack(planes, -1) if channels > 1 else planes[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of many kinds and sizes in sub-folders."""
    root = tmp_path / "in"
    (root / "deep" / "er").mkdir(parents=True)
    Image.fromarray(pixels(21, 34)).save(root / "rgb.png")
    Image.fromarray(pixels(18, 20, 4)).save(root / "alpha.png")
    Image.fromarray(pixels(16, 19, 1)).save(root / "deep" / "grey.bmp")
    Image.fromarray(pixels(20, 20)).quantize(16).save(root / "deep" / "palette.png")
    Image.fromarray(pixels(22, 17)).save(root / "deep" / "er" / "photo.jpg", quality=95)
    Image.fromarray(pixels(17, 24)).save(root / "deep" / "er" / "lossless.webp", lossless=True)
    Image.fromarray(pixels(12, 12, 1).astype(np.uint16) * 257).save(root / "sixteen.png")
    Image.fromarray(pixels(1, 3)).save(root / "tiny.tif")
    return root


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(script: ModuleType, weights: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the script's main with weights; exit code, stdout, stderr."""

    def call(*arguments: object, weights_file: Path = weights) -> tuple[int, str, str]:
        code = script.main(["--weights", str(weights_file), "--device", "cpu", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_folder_of_any_kind_of_images(run: Run, net: nn.Module, folder: Path, tmp_path: Path) -> None:
    code, out, err = run(folder, tmp_path / "out")
    assert code == 0, err
    sources = sorted(path for path in folder.rglob("*.*") if path.is_file())
    targets = sorted((tmp_path / "out").rglob("*.*"))
    expected = {path.relative_to(folder).with_suffix(".png").as_posix() for path in sources}
    assert {path.relative_to(tmp_path / "out").as_posix() for path in targets} == expected
    assert len(out.splitlines()) == len(sources)
    for source in sources:
        result = read_image(tmp_path / "out" / source.relative_to(folder).with_suffix(".png"))
        assert result.dtype == np.uint8
        whole = upscale(net, to_float(read_image(source))[None])[0].clamp(0, 1)
        assert (to_float(result) - whole).abs().max() <= 0.5 / 255 + 1e-4
    assert "alpha.png: transparency is dropped" in err
    assert err.count("transparency") == 1


def test_one_image_to_a_file_or_into_a_folder(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(folder / "rgb.png", tmp_path / "new" / "big.jpg")[0] == 0
    assert read_image(tmp_path / "new" / "big.jpg").shape == (42, 68, 3)
    assert run(folder / "rgb.png", tmp_path / "new")[0] == 0
    assert read_image(tmp_path / "new" / "rgb.png").shape == (42, 68, 3)


def test_tiles_give_the_same_picture(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(folder / "rgb.png", tmp_path / "whole.png")[0] == 0
    assert run(folder / "rgb.png", tmp_path / "tiles.png", "--tile-size", 8)[0] == 0
    difference = read_image(tmp_path / "whole.png").astype(int) - read_image(tmp_path / "tiles.png")
    assert abs(difference).max() <= 1


def test_an_unreadable_image_is_named_and_the_others_are_done(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "broken.png").write_bytes((folder / "rgb.png").read_bytes()[:60])
    code, out, err = run(folder, tmp_path / "out")
    assert code == 1
    assert "broken.png" in err
    assert "1 of 9 images failed" in err
    assert "Traceback" not in err
    assert len(out.splitlines()) == 8
    assert not (tmp_path / "out" / "deep" / "broken.png").exists()


def test_results_of_one_name_keep_their_endings(run: Run, folder: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(9, 9)).save(folder / "RGB.jpg")
    assert run(folder, tmp_path / "out")[0] == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"rgb.png.png", "RGB.jpg.png", "alpha.png"} <= names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["IN/nothing", "out"], "nothing, which does not exist"),
        (["IN/empty", "out"], "found no images"),
        (["IN/rgb.png", "out.gif"], "accepted: an existing folder, or a file ending in"),
        (["IN/rgb.png", "IN/rgb.png"], "which is the input"),
        (["IN", "IN/out"], "which lies in INPUT"),
        (["IN", "IN/rgb.png"], "a file; accepted: a folder"),
        (["IN", "out", "--device", "abacus"], "accepted here: auto, cpu"),
        (["IN", "out", "--weights", "none.safetensors"], "none.safetensors"),
        (["IN", "out", "--weights", "IN/rgb.png"], "rgb.png"),
    ],
)
def test_mistakes_are_one_message(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*(argument.replace("IN", str(folder)) for argument in arguments))
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not out
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_numbers_are_refused_by_the_command_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("a", "b", "--tile-size", "-1")
    assert stopped.value.code == 2
    assert "accepted: a number of pixels" in capsys.readouterr().err


def test_half_precision_without_a_device_for_it_is_a_notice(run: Run, folder: Path, tmp_path: Path) -> None:
    code, _, err = run(folder / "rgb.png", tmp_path / "out.png", "--half")
    assert code == 0
    assert "--half has no effect" in err


def test_as_a_user_calls_it(weights: Path, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "upscale.py", "--weights", weights, folder, tmp_path / "out"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == 8
