"""Pictures of the validation images at some of the checkpoints, to look at; nothing is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn

from traiNNer.data.normalization import physical
from traiNNer.inference import Upscaler, evaluation
from traiNNer.pictures import coloured
from traiNNer.types import Normalization, Sample
from traiNNer.utils import dist
from traiNNer.utils.images import ImageError, write_image
from traiNNer.validation import lq_gt_path


class Samples:
    """Writes `FOLDER/NAME_ITERATION.webp`, the network's result for every image.

    Args:
        folder: where they go; it is made when the first one is written.
        loaders: this process's images of each data set, with `lq` (3, H, W) and a path.
        names: path of an image to its name in the folder, the same on every process.
        tile_size: see `inference.upscale`.
        tile_overlap: see `inference.upscale`.
        normalization: of fields, which get a colour map; None for images.
    """

    def __init__(
        self,
        folder: Path,
        loaders: Sequence[Iterable[Sample]],
        names: Mapping[str, str],
        *,
        tile_size: int = 0,
        tile_overlap: int = 0,
        normalization: Normalization | None = None,
    ) -> None:
        self._folder, self._loaders, self._names = folder, loaders, names
        self._tile_size, self._tile_overlap = tile_size, tile_overlap
        self._normalization = normalization

    def write(self, net: nn.Module, iteration: int) -> tuple[int, list[str]]:
        """Write a picture of each image; every process must call it.

        The network, its modes and torch's random state are afterwards as they were.

        Args:
            net: network with `network_info`.
            iteration: goes into the names.

        Returns:
            How many all processes wrote, and why each of the others could not be.

        Raises:
            RunError: an image that cannot be read, or out of memory even with the smallest tiles.
        """
        written = 0
        failures: list[str] = []
        with evaluation(net):
            upscaler = Upscaler(net, tile_size=self._tile_size, tile_overlap=self._tile_overlap)
            for sample in (sample for loader in self._loaders for sample in loader):
                lq, _, path = lq_gt_path(sample)
                try:
                    result = upscaler(lq)
                    shown = result if self._normalization is None else coloured(physical(result, self._normalization))
                    write_image(self._folder / f"{self._names[path]}_{iteration:06d}.webp", shown)
                    written += 1
                except ImageError as error:
                    failures.append(str(error))
        parts = dist.all_gather_objects((written, failures))
        return sum(number for number, _ in parts), [line for _, lines in parts for line in lines]
