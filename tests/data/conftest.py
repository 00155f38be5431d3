"""A folder of seven pairs at scale 2, and data sets of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from traiNNer.data import ImageDataset, build_dataset
from traiNNer.utils.images import write_image

from .pairs import COUNT, Make, enlarged, located


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`gt` and `lq`: GT is LQ with every pixel twice in each direction."""
    for number in range(COUNT):
        write_image(tmp_path / "lq" / f"{number}.png", located(number))
        write_image(tmp_path / "gt" / f"{number}.png", enlarged(located(number)))
    return tmp_path


@pytest.fixture
def make(folder: Path) -> Make:
    """A data set of the folder, with options changed or, by None, left out."""

    def build(**options: Any) -> ImageDataset:
        complete = {
            "type": "PairedImageDataset",
            "name": "tiny",
            "scale": 2,
            "dataroot_gt": str(folder / "gt"),
            "dataroot_lq": str(folder / "lq"),
            "lq_size": 4,
        }
        return build_dataset({key: value for key, value in (complete | options).items() if value is not None})

    return build
