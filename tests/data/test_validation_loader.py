"""Whole images in order, divided among processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from traiNNer.data import ValidationLoader
from traiNNer.utils.errors import RunError

from .pairs import COUNT, Make, located


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, False), (2, True)])
def test_whole_images_in_order_again_and_again(workers: int, persistent: bool, make: Make) -> None:
    source = ValidationLoader(make(phase="val"), num_workers=workers, persistent_workers=persistent)
    state = torch.get_rng_state()
    for _ in range(2):
        samples = list(source)
        assert len(samples) == len(source) == COUNT
        for number, sample in enumerate(samples):
            assert np.array_equal((sample["lq"] * 255).round().numpy().transpose(1, 2, 0), located(number))
            assert sample["gt"].shape == (3, 24, 30)
            assert sample["gt"].dtype == torch.float32
            assert Path(sample["gt_path"]).name == f"{number}.png"
    assert torch.equal(torch.get_rng_state(), state)


def test_processes_share_the_images(make: Make) -> None:
    parts = [ValidationLoader(make(phase="val"), rank=rank, world_size=3) for rank in range(3)]
    names = [[Path(sample["lq_path"]).stem for sample in part] for part in parts]
    assert names == [["0", "3", "6"], ["1", "4"], ["2", "5"]]
    assert list(parts[1].indices) == [1, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_ends_the_run_by_name(workers: int, make: Make, folder: Path) -> None:
    source = ValidationLoader(make(phase="val"), num_workers=workers)
    (folder / "gt" / "2.png").write_bytes(b"no image")
    samples = iter(source)
    next(samples), next(samples)
    with pytest.raises(RunError, match=r"the data set tiny cannot be read: .*2\.png: not a PNG"):
        next(samples)
