"""The quickstart as a newcomer runs it: it ends better than bicubic on every photograph it has not seen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from traiNNer.config import load_options

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "options" / "train" / "ParagonSR2" / "quickstart.yml"
GAIN = 0.3
"""dB of PSNR-Y above bicubic that the quickstart promises in the mean."""


def test_the_file_is_valid_and_names_its_seed() -> None:
    options = load_options(QUICKSTART)
    assert options.notices == []
    assert options.manual_seed is not None
    assert options.network_g.type == "paragonsr2_nano"
    assert options.train is not None
    assert options.val is not None
    assert options.val.val_freq is not None
    assert options.train.total_iter % options.val.val_freq == 0  # the last validation is of the last weights


def luma(path: Path) -> np.ndarray:
    """(H, W) float64 luma, 16..235, without two pixels along the edges."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    return (image.astype(float) @ (np.array([24.966, 128.553, 65.481]) / 255) + 16)[2:-2, 2:-2]


def bicubic(path: Path, target: Path) -> Path:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    large = F.interpolate(tensor, scale_factor=2, mode="bicubic", antialias=True).round().clamp(0, 255).byte()
    cv2.imwrite(str(target), large[0].permute(1, 2, 0).contiguous().numpy())
    return target


def psnr(output: np.ndarray, target: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(output - target).mean()))


@pytest.mark.slow
def test_ends_above_bicubic_on_every_held_out_photograph(tmp_path: Path) -> None:
    """The result pictures are measured again here, by the formula, without the package's metrics."""
    sample = tmp_path / "datasets" / "sample"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "prepare_sample.py"), "--target", str(sample)], check=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-opt", str(QUICKSTART)],
        cwd=tmp_path, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    options = load_options(QUICKSTART)
    assert options.train is not None
    experiment, last = tmp_path / "experiments" / options.name, options.train.total_iter
    gains = []
    for gt in sorted((sample / "val" / "gt").iterdir()):
        result = experiment / "visualization" / "val" / gt.stem / f"{gt.stem}_{last}.png"
        assert result.with_stem(f"{result.stem}_compare").exists()
        baseline = bicubic(sample / "val" / "lq" / gt.name, tmp_path / gt.name)
        gains.append(psnr(luma(result), luma(gt)) - psnr(luma(baseline), luma(gt)))
    assert min(gains) > 0, gains
    assert sum(gains) / len(gains) >= GAIN, gains
    log = (experiment / "train.log").read_text(encoding="utf-8")
    lines = [line for line in log.splitlines() if f"[iter {last:,}] val " in line]
    found = {name: float(value) for name, value in re.findall(r"(psnr|ssim) (\d+\.\d+)", lines[-1])}
    compared = [float(value) for value in re.findall(r"bicubic (\d+\.\d+)", lines[-1])]
    assert found["psnr"] - compared[0] == pytest.approx(sum(gains) / len(gains), abs=1e-3)
    assert found["ssim"] > compared[1]
