"""The quickstart's photographs: complete or not there, the same every time, held-out ones never cut into tiles."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "prepare_sample.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_sample", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare_sample = load_script()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("datasets") / "sample"
    assert prepare_sample.prepare(target)
    return target


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_every_photograph_is_there_as_pairs_of_the_right_size(sample: Path) -> None:
    for phase, names in (("train", prepare_sample.TRAINING), ("val", prepare_sample.VALIDATION)):
        gt, lq = (sorted((sample / phase / kind).iterdir()) for kind in ("gt", "lq"))
        assert [path.name for path in gt] == [path.name for path in lq]
        assert {path.stem.rsplit("_", 2)[0] if phase == "train" else path.stem for path in gt} == {
            Path(name).stem for name in names
        }
        for large, small in zip(gt[::7], lq[::7], strict=True):
            height, width = read(small).shape[:2]
            assert read(large).shape == (2 * height, 2 * width, 3)


def test_held_out_photographs_are_in_no_tile(sample: Path) -> None:
    assert not set(prepare_sample.TRAINING) & set(prepare_sample.VALIDATION)
    stems = {path.stem for path in (sample / "train" / "gt").iterdir()}
    assert not [stem for stem in stems for name in prepare_sample.VALIDATION if stem.startswith(Path(name).stem)]
    both = set(prepare_sample.TRAINING) | set(prepare_sample.VALIDATION)
    assert not {"motorcycle_left.png", "motorcycle_right.png"} <= both


def test_tiles_cover_the_photograph() -> None:
    image = np.arange(300 * 451 * 3, dtype=np.uint32).reshape(300, 451, 3)
    covered = np.zeros((300, 451), dtype=bool)
    for top, left, tile in prepare_sample.tiles(image):
        assert tile.shape == (prepare_sample.TILE, prepare_sample.TILE, 3)
        assert (tile == image[top : top + prepare_sample.TILE, left : left + prepare_sample.TILE]).all()
        covered[top : top + prepare_sample.TILE, left : left + prepare_sample.TILE] = True
    assert covered.all()


def test_lq_is_antialiased_bicubic_by_the_books_formula() -> None:
    """Keys' kernel with a = -0.5, stretched by the scale, edge weights renormalized; every pixel within one level."""
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)

    def weights(length: int) -> np.ndarray:
        centres = (np.arange(length // 2) + 0.5) * 2
        distance = np.abs(np.arange(length)[None] + 0.5 - centres[:, None]) / 2
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        table = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        return table / table.sum(1, keepdims=True)

    expected = np.einsum("yh,xw,hwc->yxc", weights(16), weights(24), image.astype(float)).clip(0, 255)
    assert np.abs(prepare_sample.halved(image) - expected).max() <= 0.51


def test_two_preparations_are_equal_and_the_second_call_writes_nothing(sample: Path) -> None:
    before = contents(sample)
    times = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    assert not prepare_sample.prepare(sample)
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == times
    again = sample.with_name("again")
    assert prepare_sample.prepare(again)
    assert contents(again) == before


def test_a_preparation_that_was_killed_is_done_again(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "sample"
    process = subprocess.Popen([sys.executable, str(SCRIPT), "--target", str(target)], stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not list(tmp_path.glob("sample.unfinished/train/gt/*_0000_0128.png")):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not target.exists()
    assert prepare_sample.prepare(target)
    assert contents(target) == contents(sample)
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_an_older_sample_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "sample"
    target.mkdir()
    (target / prepare_sample.RECORD).write_text('{"format": 0}\n', encoding="utf-8")
    (target / "old.png").write_bytes(b"")
    assert prepare_sample.prepare(target)
    assert not (target / "old.png").exists()


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="not written by this script"):
        prepare_sample.prepare(tmp_path)
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--target", str(tmp_path)], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
