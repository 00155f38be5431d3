"""test.py: validates and upscales the test sets of an option file."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from traiNNer.archs import build_network
from traiNNer.evaluation import evaluate
from traiNNer.inference import upscale
from traiNNer.metrics import build_metric
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.images import read_image, to_float
from traiNNer.utils.logging import configure_logging

ROOT = Path(__file__).resolve().parent.parent

OPTIONS = """
name: nano_test
scale: 2
num_gpu: 0
datasets:
  test_1:
    name: holiday
    type: SingleImageDataset
    dataroot_lq: lq
    num_worker_per_gpu: 0
  test_2:
    name: pairs
    type: PairedImageDataset
    dataroot_gt: gt
    dataroot_lq: lq
    num_worker_per_gpu: 0
network_g: {type: paragonsr2_nano}
path: {pretrain_network_g: net.safetensors}
val:
  val_enabled: true
  save_img: true
  tile_size: 8
  suffix: x2
  metrics_enabled: true
  metrics:
    psnr: {type: calculate_psnr, crop_border: 2, test_y_channel: true}
"""


def smooth(height: int, width: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with images, weights and an option file."""
    monkeypatch.chdir(tmp_path)
    for number, (height, width, folder) in enumerate([(22, 31, "."), (17, 20, "deep")]):
        gt = smooth(2 * height, 2 * width, number)
        for kind, image in {"gt": gt, "lq": gt.resize((width, height), Image.Resampling.BICUBIC)}.items():
            Path(kind, folder).mkdir(parents=True, exist_ok=True)
            image.save(Path(kind, folder, f"{number}.png"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build_network({"type": "paragonsr2_nano", "scale": 2})
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, "net.safetensors")
    Path("my.yml").write_text(OPTIONS, encoding="utf-8")
    yield tmp_path
    configure_logging(None)


def test_sets_with_and_without_ground_truth(place: Path) -> None:
    assert evaluate(Path("my.yml")) == 0
    results = place / "results" / "nano_test"
    written = {path.relative_to(results).as_posix() for path in results.rglob("*.*")}
    images = {"0_x2", "deep/1_x2"}
    compared = {f"pairs/{name}_compare.png" for name in images}
    assert written == {f"{kind}/{name}.png" for kind in ("holiday", "pairs") for name in images} | compared | {
        "test.log"
    }
    net = build_network({"type": "paragonsr2_nano", "scale": 2})
    from safetensors.torch import load_file

    net.load_state_dict(load_file("net.safetensors"))
    values = []
    for name in ("0", "deep/1"):
        whole = upscale(net, to_float(read_image(f"lq/{name}.png"))[None])
        result = to_float(read_image(results / "holiday" / f"{name}_x2.png"))
        assert (result - whole[0].clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-4
        metric = build_metric({"type": "psnr", "crop_border": 2, "test_y_channel": True})
        values.append(metric(whole, to_float(read_image(f"gt/{name}.png"))[None]))
    log = (results / "test.log").read_text(encoding="utf-8")
    assert f"psnr {sum(values) / 2:.4f}" in log
    assert "bicubic" in log
    assert "PSNR in dB (Y channel, crop 2 px" in log


def test_earlier_results_are_moved_away(place: Path) -> None:
    evaluate(Path("my.yml"))
    evaluate(Path("my.yml"))
    folders = sorted(path.name for path in (place / "results").iterdir())
    assert len(folders) == 2
    assert folders[0] == "nano_test"
    assert folders[1].startswith("nano_test_archived_")


def test_without_a_val_section_images_are_upscaled(place: Path) -> None:
    Path("my.yml").write_text(OPTIONS[: OPTIONS.index("val:")], encoding="utf-8")
    assert evaluate(Path("my.yml")) == 0
    assert (place / "results" / "nano_test" / "holiday" / "0_nano_test.png").is_file()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("net.safetensors", "none.safetensors", "path.pretrain_network_g"),
        ("path: {pretrain_network_g: net.safetensors}", "", "path.pretrain_network_g: required key is missing"),
        ("dataroot_gt: gt", "dataroot_gt: nowhere", "datasets.test_2.dataroot_gt"),
        ("paragonsr2_nano", "paragonsr2_xs", "path.pretrain_network_g"),
        ("psnr: {type", "psnr: {tipe", "val.metrics.psnr"),
        ("num_gpu: 0", "num_gpu: 99", "num_gpu: found 99"),
        ("crop_border: 2", "crop_border: 99", "val.metrics.psnr: found an image of"),
    ],
)
def test_mistakes_have_file_and_line_and_leave_nothing(place: Path, old: str, new: str, message: str) -> None:
    Path("my.yml").write_text(OPTIONS.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        evaluate(Path("my.yml"))
    assert message in str(caught.value)
    assert all(line.startswith("my.yml:") for line in str(caught.value).splitlines())
    assert not (place / "results").exists()


def test_as_a_user_calls_it(place: Path) -> None:
    Path("my.yml").write_text(OPTIONS.replace("dataroot_gt", "dataroot_gd"), encoding="utf-8")
    command = [sys.executable, ROOT / "test.py", "-opt", "my.yml"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=100, check=False)
    assert done.returncode == 2
    assert "dataroot_gd" in done.stderr
    assert "did you mean dataroot_gt" in done.stderr
    assert "Traceback" not in done.stderr


UNDER_A_LIMIT = """
    import resource, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from traiNNer.evaluation import evaluate
    evaluate(Path("small.yml"))  # what is imported and started once is not what is measured
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20, resource.RLIM_INFINITY))
    sys.exit(evaluate(Path("my.yml")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="an address-space limit and /proc are Linux's")
def test_a_run_that_is_short_of_memory_gives_the_same_pictures(place: Path) -> None:
    options = OPTIONS[: OPTIONS.index("  test_2:")] + OPTIONS[OPTIONS.index("network_g") :]
    options = options.replace("tile_size: 8", "tile_size: 0")
    Path("small.yml").write_text(options.replace("nano_test", "small"), encoding="utf-8")
    Path("large").mkdir()
    smooth(500, 400, 3).save("large/image.png")
    pictures = []
    for name, megabytes in {"whole": "4000", "limited": "200"}.items():
        text = options.replace("nano_test", name).replace("dataroot_lq: lq", "dataroot_lq: large")
        Path("my.yml").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(UNDER_A_LIMIT), megabytes],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ("out of memory" in done.stderr) == (name == "limited")
        pictures.append(read_image(f"results/{name}/holiday/image_x2.png").astype(int))
    assert abs(pictures[0] - pictures[1]).max() <= 1  # a difference below 1e-4 may still round to the next level
