"""The check of all files before a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from traiNNer.data import build_dataset, check_datasets
from traiNNer.data.preflight import LISTED, HeaderCache
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.images import write_image

from .pairs import Make, enlarged, located


def problems_of(**datasets: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as error:
        check_datasets(datasets)
    return {problem.key: problem.message for problem in error.value.problems}


def test_everything_is_reported_together_by_data_set_and_file(make: Make, folder: Path) -> None:
    (folder / "gt" / "0.png").write_bytes(b"")
    write_image(folder / "lq" / "1.png", located(1)[:, :-1])
    write_image(folder / "lq" / "2.png", located(2)[:3])
    write_image(folder / "gt" / "2.png", enlarged(located(2)[:3]))
    (folder / "lq" / "3.png").unlink()
    (folder / "gt" / "4.png").unlink()
    write_image(folder / "lq" / "5.webp", located(5))
    (folder / "gt" / "5.png").rename(folder / "gt" / "5.bmp")
    found = problems_of(train=make(), val=make(phase="val", name="held out"))
    gt, lq = f"  {folder / 'gt'}{os.sep}", f"  {folder / 'lq'}{os.sep}"
    assert found["train"].splitlines() == [
        "6 problems with the files of tiny:",
        f"{gt}3.png: has no LQ partner {folder / 'lq' / '3'}.*",
        f"{gt}5.bmp: has several LQ partners: {folder / 'lq' / '5.png'}, {folder / 'lq' / '5.webp'}",
        f"{lq}4.png: is LQ without a GT partner in {folder / 'gt'}",
        f"{gt}0.png: the file is empty",
        f"{lq}1.png: is 14 x 12 px, but its GT is 30 x 24; at scale 2 it must be 28 x 24",
        f"{lq}2.png: is 15 x 3 px, smaller than the crop of 4 px for LQ",
    ]
    assert found["val"].splitlines()[0] == "5 problems with the files of held out:"
    assert "smaller" not in found["val"]


def test_gt_too_small_for_the_crop_where_lq_is_made(make: Make, folder: Path) -> None:
    found = problems_of(train=make(dataroot_lq=None, lq_size=13))
    assert f"{folder / 'gt' / '0.png'}: is 30 x 24 px, smaller than the crop of 26 px for GT" in found["train"]


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    for number in range(LISTED + 5):
        (tmp_path / f"{number}.png").touch()
    lines = problems_of(val=build_dataset({"type": "SingleImageDataset", "dataroot_lq": str(tmp_path)}))[
        "val"
    ].splitlines()
    assert lines[0] == f"{LISTED + 5} problems with the files of val:"
    assert len(lines) == LISTED + 2
    assert lines[-1] == "  and 5 more"


def test_transparency_is_remarked_once_for_each_data_set(make: Make, folder: Path) -> None:
    import cv2

    for number in (1, 2):
        cv2.imwrite(str(folder / "gt" / f"{number}.png"), np.zeros((24, 30, 4), np.uint8))
    assert check_datasets({"train": make()}) == [
        "datasets.train (tiny): 2 of 14 files have transparency, which is dropped"
    ]


def check_with(make: Make, file: Path) -> None:
    """The check of a run that starts."""
    cache = HeaderCache(file)
    check_datasets({"train": make()}, cache)
    cache.write()


def test_headers_are_remembered_until_a_file_changes(make: Make, folder: Path) -> None:
    cache = folder / "cache" / "headers.json"
    check_with(make, cache)
    path = str(folder / "lq" / "0.png")
    stored = json.loads(cache.read_text(encoding="utf-8"))
    place = stored["files"][path].index(12)
    stored["files"][path][place] = 11  # believed, so that what follows shows that the cache is read
    cache.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ConfigError, match="is 15 x 11 px"):
        check_with(make, cache)
    os.utime(path, ns=(1, 1))
    check_with(make, cache)
    assert json.loads(cache.read_text(encoding="utf-8"))["files"][path][place] == 12


def test_the_cache_is_written_only_on_success_and_may_be_damaged(make: Make, folder: Path) -> None:
    cache = folder / "headers.json"
    bad = folder / "gt" / "0.png"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(ConfigError):
        check_with(make, cache)
    assert not cache.exists()
    bad.write_bytes(good)
    for damage in ("", "[]", '{"version": 1}', '{"version": 1, "files": {"a": 1}}', '{"version": 0, "files": {}}'):
        cache.write_text(damage, encoding="utf-8")
        check_with(make, cache)
        assert len(json.loads(cache.read_text(encoding="utf-8"))["files"]) == 14
    blocked = folder / "gt" / "0.png" / "cache.json"
    check_with(make, blocked)
