"""What the tests share: small photographs, option files, and runs within this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

torch.set_num_threads(1)

Run = Callable[..., int]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `gt` (64 px) and `lq` (32 px), ten tiles of a photograph each; the last two are in `val`."""
    from skimage.data import astronaut

    folder = tmp_path_factory.mktemp("photos")
    picture = Image.fromarray(astronaut())
    for number in range(10):
        part = folder / "val" if number >= 8 else folder
        left, top = 48 * number, 64 + 30 * number
        tile = picture.crop((left, top, left + 64, top + 64))
        for kind, image in (("gt", tile), ("lq", tile.resize((32, 32), Image.Resampling.BICUBIC))):
            (part / kind).mkdir(parents=True, exist_ok=True)
            image.save(part / kind / f"{number:02}.png")
    return folder


@pytest.fixture
def options(photos: Path, tmp_path: Path) -> dict[str, Any]:
    """The options of a run of 8 iterations of a tiny network; tests change what they are about."""
    return {
        "name": "tiny",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 1,
        "use_channels_last": False,
        "datasets": {
            "train": {
                "name": "tiles",
                "type": "PairedImageDataset",
                "dataroot_gt": str(photos / "gt"),
                "dataroot_lq": str(photos / "lq"),
                "gt_size": 32,
                "batch_size_per_gpu": 3,
                "num_worker_per_gpu": 0,
            },
            "val": {
                "name": "held out",
                "type": "PairedImageDataset",
                "dataroot_gt": str(photos / "val" / "gt"),
                "dataroot_lq": str(photos / "val" / "lq"),
                "num_worker_per_gpu": 0,
            },
        },
        "network_g": {"type": "ParagonSR2", "num_feat": 8, "num_groups": 1, "num_blocks": 1},
        "path": {"experiments_root": str(tmp_path / "experiments")},
        "train": {
            "total_iter": 8,
            "ema_decay": 0.9,
            "warmup_iter": 2,
            "optim_g": {"type": "AdamW", "lr": 4e-3},
            "scheduler": {"type": "CosineAnnealingLR"},
            "losses": [{"type": "l1loss", "loss_weight": 1.0}],
        },
        "val": {
            "val_enabled": True,
            "val_freq": 4,
            "save_img": False,
            "metrics_enabled": True,
            "metrics": {"psnr": {"type": "psnr"}, "ssim": {"type": "ssim"}},
        },
        "logger": {"print_freq": 2, "save_checkpoint_freq": 4, "use_tb_logger": False},
    }


@pytest.fixture
def write_options(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """Writes options into a YAML file."""

    def write(values: Mapping[str, Any], name: str = "options.yml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run_training(write_options: Callable[..., Path]) -> Run:
    """Runs train.py's program in this process and returns its exit code."""

    def run(values: Mapping[str, Any], *arguments: str) -> int:
        from traiNNer.cli import ending_with_message, parse_train
        from traiNNer.run import train

        path = write_options(values)
        return ending_with_message(lambda: train(parse_train(["-opt", str(path), *arguments])))

    return run


@pytest.fixture(autouse=True)
def _global_random_state() -> None:
    """Tests do not depend on the order in which they run."""
    torch.manual_seed(0)
    np.random.seed(0)
