"""Images without GT, for upscaling a folder."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from traiNNer.data.dataset import (
    Backend,
    Folders,
    Headers,
    Name,
    Phase,
    Scale,
    as_list,
    image_folders,
    raise_problems,
    unit_range_sample,
)
from traiNNer.types import Sample
from traiNNer.utils.errors import Problem
from traiNNer.utils.images import read_image, to_tensor
from traiNNer.utils.registry import DATASETS


@DATASETS.register("SingleImageDataset")
class SingleImageDataset:
    """Whole LQ images of one or several folders, searched deeply; nothing is random, and there is no GT.

    Shapes: `lq` (3, h, w), with `lq_path`. Range: RGB float32 in [0, 1].
    Reference: BasicSR's data set of this name, https://github.com/XPixelGroup/BasicSR.

    ```yaml
    datasets:
      val:
        name: holiday
        type: SingleImageDataset
        dataroot_lq: pictures/holiday
    ```

    Raises:
        ConfigError: used for training, or folders missing or empty.
    """

    channels = 3

    def __init__(
        self,
        *,
        name: Name = "",
        phase: Phase = "val",
        scale: Scale = 1,
        dataroot_lq: Annotated[Folders | None, Field(description="Folder or folders of images.")] = None,
        io_backend: Backend = {"type": "disk"},  # noqa: B006 - a default as the option file writes it
    ) -> None:
        self.name, self.scale = name, scale
        problems: list[Problem] = []
        if phase == "train":
            problems.append(
                Problem(key="type", message="SingleImageDataset has no GT to train on; accepted: PairedImageDataset")
            )
        if not dataroot_lq:
            problems.append(
                Problem(key="dataroot_lq", message="required key is missing; accepted: a folder or a list of folders")
            )
        found = image_folders("dataroot_lq", dataroot_lq, problems)
        raise_problems(problems)
        self.lq_paths = [folder.path(name) for folder in found for name in folder.names]
        self._folders = as_list(dataroot_lq)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.lq_paths)

    def sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Image `index` as float32 in [0, 1]."""
        return unit_range_sample(self.stored_sample(index, generator))

    def stored_sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Image `index` in the file's depth, uint8 or uint16.

        Raises:
            ImageError: the file cannot be read.
        """
        path = self.lq_paths[index]
        return {"lq": to_tensor(read_image(path)), "lq_path": path}

    def describe(self) -> dict[str, Any]:
        """Facts for the start-up table."""
        return {"name": self.name, "images": len(self), "crop": "whole images", "lq": ", ".join(self._folders)}

    def files(self) -> list[str]:
        """Every image file that it reads."""
        return list(self.lq_paths)

    def inputs(self) -> list[str]:
        """The file of each sample."""
        return list(self.lq_paths)

    @property
    def smallest(self) -> None:
        """There is nothing to compare with."""
        return

    def check(self, headers: Headers) -> list[str]:
        """Files that cannot be read."""
        return [f"{path}: {headers[path]}" for path in self.lq_paths if isinstance(headers[path], str)]
