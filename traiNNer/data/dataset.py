"""What every image data set is, and the checks of options that they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import AfterValidator, Field

from traiNNer.data.pairing import ImageFolder
from traiNNer.types import Sample
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.image_headers import ImageHeader
from traiNNer.utils.images import image_names, unit_range

Headers = Mapping[str, ImageHeader | str]
"""By path: the header, or in words why there is none."""


class ImageDataset(Protocol):
    """A data set: images found when it is made, read when they are asked for. Objects can be pickled."""

    name: str

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def stored_sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Sample `index` with the images in the files' depth, (3, H, W) uint8 or uint16, or else float32.

        In training everything random comes from `generator`. This is what loaders carry between processes: a
        quarter of the memory of float32, and they make float32 of it at the end.

        Raises:
            ImageError: a file cannot be read, or does not fit.
        """
        ...

    def sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Sample `index` with images as (3, H, W) float32 in [0, 1]; otherwise as `stored_sample`."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for the start-up table."""
        ...

    @property
    def smallest(self) -> tuple[int, str] | None:
        """Shortest side (px) that a validation compares with its ground truth, and whose; known after `check`."""
        ...

    def files(self) -> list[str]:
        """Every image file that it reads."""
        ...

    def inputs(self) -> list[str]:
        """The file of each sample's LQ, or that of the GT from which it is made."""
        ...

    def check(self, headers: Headers) -> list[str]:
        """What is wrong with its files, one line each; `headers` holds those of `files()`."""
        ...


def unit_range_sample(sample: Sample) -> Sample:
    """The sample with float32 images in [0, 1]."""
    converted = sample.copy()
    if "lq" in sample:
        converted["lq"] = unit_range(sample["lq"])
    if "gt" in sample:
        converted["gt"] = unit_range(sample["gt"])
    return converted


def _supported_backend(backend: dict[str, Any]) -> dict[str, Any]:
    if backend.get("type") != "disk" or len(backend) > 1:
        raise ValueError("{type: disk}; lmdb is not supported yet: give folders of image files")
    return backend


def _template(template: str) -> str:
    try:
        usable = template.format("\0").count("\0") == 1 and not {"/", "\\"} & set(template)
    except (IndexError, KeyError, ValueError):
        usable = False
    if not usable:
        raise ValueError("a name without suffix in which {} stands for the GT file's name, such as '{}x2'")
    return template


Name = Annotated[str, Field(description="What messages and logs call the data set.")]
Phase = Annotated[
    str, Field(pattern="^(train|val|test)$", description="`train`: random crops; `val` and `test`: whole images.")
]
Scale = Annotated[int, Field(ge=1, description="GT size / LQ size.")]
Folders = str | list[str]
Backend = Annotated[
    dict[str, Any],
    AfterValidator(_supported_backend),
    Field(description="How files are stored; `{type: disk}` is what there is."),
]
FilenameTemplate = Annotated[
    str, AfterValidator(_template), Field(description="Name of the LQ file without suffix; {} is the GT file's name.")
]


def as_list(folders: Folders | None) -> list[str]:
    """The folders of an option that may hold one or several."""
    return [] if folders is None else [folders] if isinstance(folders, str) else list(folders)


def image_folders(option: str, folders: Folders | None, problems: list[Problem]) -> list[ImageFolder]:
    """The images of each folder; what is missing or empty is added to `problems`."""
    found: list[ImageFolder] = []
    for folder in as_list(folders):
        found.append(ImageFolder(folder, []))
        try:
            found[-1] = ImageFolder(folder, image_names(folder))
        except FileNotFoundError:
            problems.append(Problem(key=option, message=f"the folder {folder} does not exist"))
            continue
        except OSError as error:
            reason = "not a folder" if Path(folder).is_file() else (error.strerror or str(error)).lower()
            problems.append(Problem(key=option, message=f"{folder} cannot be read: {reason}"))
            continue
        if not found[-1].names:
            message = f"the folder {folder} holds no images; accepted: png, jpg, jpeg, webp, bmp, tif, tiff"
            problems.append(Problem(key=option, message=message))
    return found


def raise_problems(problems: list[Problem]) -> None:
    """ConfigError with all of them, if there are any."""
    if problems:
        raise ConfigError(problems)
