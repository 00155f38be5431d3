"""The files that a validation writes: results, and comparisons of LQ, bicubic enlargement, result and GT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from traiNNer.data.normalization import physical
from traiNNer.metrics.psnr_metric import PSNR
from traiNNer.types import Metric, Normalization
from traiNNer.utils.arrays import write_array
from traiNNer.utils.colormaps import ColourRange, colours
from traiNNer.utils.images import write_image
from traiNNer.utils.panels import side_by_side

ROWS = 3
"""So many channels of a field are shown."""

SMALLEST_PANEL = 192
"""Smaller fields are shown with larger pixels, px."""


class ResultFiles:
    """Where results go: `FOLDER/NAME/NAME_ITERATION_SUFFIX.png`, or `FOLDER/NAME_SUFFIX.png` without an iteration."""

    def __init__(self, folder: Path, suffix: str | None) -> None:
        self._folder, self._suffix = folder, suffix

    def path(self, name: str, iteration: int | None, ending: str) -> Path:
        """The file for an image; `ending` is put behind the suffix, such as `_compare.png`."""
        parts = [Path(name).name, None if iteration is None else str(iteration), self._suffix]
        file = "_".join(part for part in parts if part) + ending
        place = self._folder / name
        return (place.parent if iteration is None else place) / file


class ImagePictures:
    """Results as images, and comparisons with the PSNR of each."""

    def __init__(self, files: ResultFiles, metrics: Mapping[str, Metric]) -> None:
        self._files = files
        self._psnr = next((metric for metric in metrics.values() if isinstance(metric, PSNR)), PSNR())

    def result(self, name: str, output: Tensor, iteration: int | None) -> Path:
        """Write the result alone."""
        path = self._files.path(name, iteration, ".png")
        write_image(path, output)
        return path

    def comparison(
        self, name: str, panels: Mapping[str, Tensor], output: Tensor, gt: Tensor, iteration: int | None
    ) -> Path:
        """Write the result, and the panels side by side with GT."""
        self.result(name, output, iteration)
        height, width = common_size(output, gt)
        target = gt[..., :height, :width]
        shown = []
        measure = "PSNR-Y" if self._psnr.test_y_channel else "PSNR"
        for label, image in panels.items():
            cut = image[..., :height, :width]
            shown.append((f"{label}, {measure} {self._psnr(cut, target):.2f} dB", cut))
        path = self._files.path(name, iteration, "_compare.png")
        side_by_side(path, [*shown, ("GT", target)])
        return path


class FieldPictures:
    """Results as `.npy` in the units of the files, and comparisons in colours: a row for each of the first channels.

    All panels of a row have the colours of GT's range; the difference from GT has its own.
    """

    def __init__(self, files: ResultFiles, normalization: Normalization) -> None:
        self._files, self._normalization = files, normalization

    def result(self, name: str, output: Tensor, iteration: int | None) -> Path:
        """Write the numbers, (C, H, W) float32, and a picture of them; the path of that."""
        field = self._physical(output)
        write_array(self._files.path(name, iteration, ".npy"), field)
        path = self._files.path(name, iteration, ".png")
        write_image(path, _coloured(field))
        return path

    def comparison(
        self, name: str, panels: Mapping[str, Tensor], output: Tensor, gt: Tensor, iteration: int | None
    ) -> Path:
        """Write the result's numbers, and the panels side by side with GT and the result's difference from it."""
        height, width = common_size(output, gt)
        shown = {label: self._physical(field)[:, :height, :width] for label, field in panels.items()}
        write_array(self._files.path(name, iteration, ".npy"), self._physical(output))
        target = self._physical(gt)[:, :height, :width]
        rows = [
            _row({label: field[channel] for label, field in shown.items()}, target[channel], channel)
            for channel in range(min(ROWS, len(target)))
        ]
        path = self._files.path(name, iteration, "_compare.png")
        side_by_side(path, *rows)
        return path

    def _physical(self, field: Tensor) -> np.ndarray:
        return physical(field[0].float().cpu(), self._normalization).numpy()


def _row(panels: Mapping[str, np.ndarray], target: np.ndarray, channel: int) -> list[tuple[str, np.ndarray]]:
    ends = ColourRange.of(target)
    row: list[tuple[str, np.ndarray]] = []
    for label, field in panels.items():
        error = float(np.sqrt(np.square(field - target, dtype=np.float64).mean()))
        row.append((f"{label}, RMSE {error:.3g}", _enlarged(colours(field, ends))))
    row.append((f"GT {channel}, {ends}", _enlarged(colours(target, ends))))
    difference = panels["result"] - target
    own = ColourRange.around_zero(difference)
    return [*row, (f"result - GT, {own}", _enlarged(colours(difference, own)))]


def coloured(field: Tensor) -> np.ndarray:
    """(1, C, H, W) as a picture, (H, W, 3) uint8: the first channels below each other, each with its own range."""
    return _coloured(field[0].float().cpu().numpy())


def _coloured(field: np.ndarray) -> np.ndarray:
    return np.concatenate([colours(channel, ColourRange.of(channel)) for channel in field[:ROWS]])


def _enlarged(picture: np.ndarray) -> np.ndarray:
    times = max(1, SMALLEST_PANEL // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def common_size(first: Tensor, second: Tensor) -> tuple[int, int]:
    """(height, width) that both have, px."""
    return min(first.shape[-2], second.shape[-2]), min(first.shape[-1], second.shape[-1])
