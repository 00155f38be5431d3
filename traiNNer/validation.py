"""Validation: a network on whole images, measured against the ground truth and against bicubic enlargement."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from traiNNer.data.normalization import physical
from traiNNer.inference import Upscaler, evaluation, is_out_of_memory
from traiNNer.losses import needs
from traiNNer.losses.base import Loss, total
from traiNNer.pictures import FieldPictures, ImagePictures, ResultFiles, common_size
from traiNNer.types import Metric, Normalization, Sample
from traiNNer.utils import dist
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.logging import get_logger


@dataclass(frozen=True, kw_only=True)
class ImageReport:
    """What one image gave."""

    name: str
    values: dict[str, float] = field(default_factory=dict)
    """Each metric of the result; empty without ground truth."""
    bicubic: dict[str, float] = field(default_factory=dict)
    """Each metric of the bicubic enlargement; empty without ground truth."""
    losses: dict[str, float] = field(default_factory=dict)
    """Each fidelity loss, unweighted, by label."""
    loss: float | None = None
    """Their sum, each times its weight."""
    picture: Path | None = None
    """LQ, bicubic, result and GT side by side; the result itself without ground truth."""


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """What one validation of a data set gave, over the images of all processes."""

    values: dict[str, float]
    """Each metric's mean over the images."""
    loss: float | None
    """`val/loss`: sum of the fidelity losses, each times its weight; mean over the images."""
    losses: dict[str, float]
    """Each fidelity loss's mean over the images, unweighted, by label."""
    images: int
    seconds: float
    pictures: list[Path]
    each: list[ImageReport]


def bicubic(lq: Tensor, scale: int, *, clamp: bool = True) -> Tensor:
    """Enlarge (1, C, H, W) by Keys' cubic kernel with a = -0.5, as Pillow and MATLAB do; images are clamped to [0, 1].

    PyTorch has that kernel under `antialias`, which changes nothing else in an enlargement; its plain bicubic has
    a = -0.75, which scores lower.
    """
    enlarged = nn.functional.interpolate(lq, scale_factor=scale, mode="bicubic", antialias=True)
    return enlarged.clamp(0, 1) if clamp else enlarged


class Validator:
    """Validates networks on one data set.

    Args:
        name: the data set's name, for the log.
        loader: this process's samples; whole images, `lq` (3, H, W) and optionally `gt` (3, scale H, scale W).
        metrics: label to metric.
        scale: GT size / LQ size.
        tile_size: see `inference.upscale`.
        tile_overlap: see `inference.upscale`.
        save_folder: where results and side-by-side pictures go; None for none.
        suffix: added to the names of the pictures.
        fidelity_losses: gives label to (loss, weight): the losses that need only output and target.
        roots: folders of the data set; an image in a sub-folder keeps it in its name.
        normalization: of fields, None for images. Metrics compare fields in the units of their files, losses as
            in training.
    """

    def __init__(
        self,
        name: str,
        loader: Iterable[Sample],
        metrics: Mapping[str, Metric],
        *,
        scale: int,
        tile_size: int = 0,
        tile_overlap: int = 0,
        save_folder: Path | None = None,
        suffix: str | None = None,
        fidelity_losses: Callable[[], Mapping[str, tuple[Loss, float]]] = dict,
        roots: Sequence[Path] = (),
        normalization: Normalization | None = None,
    ) -> None:
        self.name, self.metrics, self._normalization = name, dict(metrics), normalization
        self._loader, self._scale = loader, scale
        self._tile_size, self._tile_overlap = tile_size, tile_overlap
        self._names = ImageNames(roots)
        self._pictures: ImagePictures | FieldPictures | None = None
        if save_folder is not None:
            files = ResultFiles(save_folder, suffix)
            images = normalization is None
            self._pictures = ImagePictures(files, self.metrics) if images else FieldPictures(files, normalization)
        self._losses = fidelity_losses
        self._baseline: dict[str, float] | None = None
        self._bicubic: dict[str, dict[str, float]] = {}
        self._noticed = False

    def run(
        self, net: nn.Module, iteration: int | None, *, on_image: Callable[[], None] | None = None
    ) -> ValidationReport:
        """Validate a network; it, its modes and torch's random state are afterwards as they were.

        Args:
            net: network with `network_info`.
            iteration: goes into the names of the pictures; None for none.
            on_image: called after each image.

        Raises:
            ConfigError: an image that a metric cannot measure.
            ImageError: an image that cannot be read.
            RunError: out of memory even with the smallest tiles.
        """
        started = time.perf_counter()
        reports: list[ImageReport] = []
        with evaluation(net):
            upscaler = Upscaler(net, tile_size=self._tile_size, tile_overlap=self._tile_overlap)
            for sample in self._loader:
                reports.append(self._validate(sample, upscaler, iteration))
                if on_image is not None:
                    on_image()
        each = [report for part in dist.all_gather_objects(reports) for report in part]
        if self._baseline is None:
            self._baseline = _means(report.bicubic for report in each)
        losses = [report.loss for report in each if report.loss is not None]
        return ValidationReport(
            values=_means(report.values for report in each),
            loss=math.fsum(losses) / len(losses) if losses else None,
            losses=_means(report.losses for report in each),
            images=len(each),
            seconds=time.perf_counter() - started,
            pictures=[report.picture for report in each if report.picture is not None],
            each=each,
        )

    def baseline(self) -> dict[str, float]:
        """Each metric's mean for bicubic enlargement; computed once. Every process must call it."""
        if self._baseline is None:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                pairs = (lq_gt_path(sample) for sample in self._loader)
                mine = [self._measure_bicubic(lq, gt, path) for lq, gt, path in pairs if gt is not None]
            self._baseline = _means(values for part in dist.all_gather_objects(mine) for values in part)
        return self._baseline

    def _validate(self, sample: Sample, upscaler: Upscaler, iteration: int | None) -> ImageReport:
        lq, gt, path = lq_gt_path(sample)
        name, output = self._names.name(path), upscaler(lq)
        if gt is None:
            picture = self._pictures.result(name, output, iteration) if self._pictures else None
            return ImageReport(name=name, picture=picture)
        values, losses, loss = self._figures(output, gt, path)
        return ImageReport(
            name=name,
            values=values,
            bicubic=self._measure_bicubic(lq, gt, path),
            losses=losses,
            loss=loss,
            picture=self._compared(name, lq, output, gt, iteration),
        )

    def _compared(self, name: str, lq: Tensor, output: Tensor, gt: Tensor, iteration: int | None) -> Path | None:
        if self._pictures is None:
            return None
        nearest = nn.functional.interpolate(lq, scale_factor=self._scale, mode="nearest-exact")
        panels = {"LQ": nearest, "bicubic": self._enlarged(lq), "result": output.cpu()}
        return self._pictures.comparison(name, panels, output, gt, iteration)

    def _enlarged(self, lq: Tensor) -> Tensor:
        return bicubic(lq, self._scale, clamp=self._normalization is None)

    def _figures(
        self, output: Tensor, gt: Tensor, path: str
    ) -> tuple[dict[str, float], dict[str, float], float | None]:
        """Metrics, losses and their weighted sum, computed where the output is, or in main memory for lack of room."""
        try:
            target = gt.to(output.device)
            return self._measure(output, target, path), *self._compare(output, target)
        except (RuntimeError, MemoryError) as error:
            if output.device.type == "cpu" or not is_out_of_memory(error):
                raise
        output = output.cpu()
        return self._measure(output, gt, path), *self._compare(output, gt)

    def _measure_bicubic(self, lq: Tensor, gt: Tensor, path: str) -> dict[str, float]:
        """The figures of an image's enlargement; computed once, they never change."""
        if path not in self._bicubic:
            self._bicubic[path] = self._measure(self._enlarged(lq), gt, path) if self.metrics else {}
        return self._bicubic[path]

    def _measure(self, output: Tensor, target: Tensor, path: str) -> dict[str, float]:
        output, target = self._same_size(output, target, path)
        if self._normalization is not None:
            output, target = (physical(field, self._normalization) for field in (output, target))
        try:
            return {label: metric(output, target) for label, metric in self.metrics.items()}
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def _compare(self, output: Tensor, target: Tensor) -> tuple[dict[str, float], float | None]:
        """The fidelity losses by label, and their sum, each times its weight; those without one are not in it."""
        losses = self._losses()
        height, width = common_size(output, target)
        inputs = {"output": output[..., :height, :width], "target": target[..., :height, :width]}
        values = {label: _computed(loss, inputs, output.device) for label, (loss, _) in losses.items()}
        weighted = [weight * values[label] for label, (_, weight) in losses.items() if weight != 0]
        return values, sum(weighted) if weighted else None

    def _same_size(self, output: Tensor, target: Tensor, path: str) -> tuple[Tensor, Tensor]:
        if output.shape != target.shape and not self._noticed:
            sizes = [f"{image.shape[-1]}x{image.shape[-2]}" for image in (output, target)]
            text = "%s: the result has %s px, GT %s px; what both have is compared, here and wherever sizes differ"
            get_logger().warning(text, path, *sizes)
            self._noticed = True
        height, width = common_size(output, target)
        return output[..., :height, :width], target[..., :height, :width]


class ImageNames:
    """Names of images, each its own, from paths: relative to the data set's folders, without suffix."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = list(roots)
        self._by_path: dict[str, str] = {}
        self._taken: set[str] = set()

    def name(self, path: str) -> str:
        """The name of the image at a path; it depends on the paths that were named before."""
        if path not in self._by_path:
            name = plain = self._plain(Path(path))
            number = 1
            while name in self._taken:
                number += 1
                name = f"{plain}_{number}"
            self._by_path[path] = name
            self._taken.add(name)
        return self._by_path[path]

    def _plain(self, path: Path) -> str:
        root = next((root for root in self._roots if path.is_relative_to(root)), path.parent)
        plain = path.relative_to(root)
        time = re.fullmatch(r"(\.\w+)\[([0-9]+)\]", plain.suffix)  # `flow.npy[12]`, a time of a file of fields
        return plain.with_suffix("").as_posix() + (f"_{time[2]}" if time else "")


def lq_gt_path(sample: Sample) -> tuple[Tensor, Tensor | None, str]:
    """A sample's images as batches of one, without GT where there is none, and the path that names it."""
    if "lq" not in sample:
        raise KeyError("a sample without lq")
    gt = sample["gt"][None] if "gt" in sample else None
    return sample["lq"][None], gt, sample.get("lq_path") or sample.get("gt_path") or "image"


def _computed(loss: Loss, inputs: Mapping[str, Tensor], device: torch.device) -> float:
    """A loss's value where its inputs are; if it has a network elsewhere, that is there only for so long."""
    home = next((tensor.device for tensor in (*loss.parameters(), *loss.buffers())), device)
    try:
        value = (loss if home == device else loss.to(device))(**{name: inputs[name] for name in needs(loss)})
        return float(total(value))  # host-device synchronization
    finally:
        if home != device:
            loss.to(home)


def _means(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every label over those who have it; the sum is exact, so the order of images does not matter."""
    values: dict[str, list[float]] = {}
    for figures in each:
        for label, value in figures.items():
            values.setdefault(label, []).append(value)
    return {label: math.fsum(numbers) / len(numbers) for label, numbers in values.items()}
