"""What every data set is, and the checks of options that they share."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from pydantic import AfterValidator, Field

from traiNNer.data.pairing import ImageFolder
from traiNNer.types import Normalization, Sample
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.image_headers import ImageHeader
from traiNNer.utils.images import SUFFIXES, image_names, unit_range

Headers = Mapping[str, ImageHeader | str]
"""By path: the header, or in words why there is none."""


class ImageDataset(Protocol):
    """A data set: images found when it is made, read when they are asked for. Objects can be pickled."""

    name: str

    @property
    def channels(self) -> int:
        """Channels of its samples; 3 for images, which are RGB."""
        ...

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


@runtime_checkable
class FieldDataset(Protocol):
    """A data set of fields, numbers with units, instead of images: any number of channels, normalized."""

    @property
    def normalization(self) -> Normalization:
        """What its samples are normalized by; of no effect (0 and 1) before `normalize_by`."""
        ...

    def normalize_by(self, known: Normalization | None) -> None:
        """Settle the normalization.

        Args:
            known: the training set's, or that of the network's weights; for a training set, that of the run that is
                resumed. None where there is none.

        Raises:
            ConfigError: its own option disagrees, or its files cannot be normalized.
        """
        ...


def normalization_of(dataset: ImageDataset) -> Normalization | None:
    """A data set's normalization; None if it holds images."""
    return dataset.normalization if isinstance(dataset, FieldDataset) else None


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


IMAGE_ENDINGS = "png, jpg, jpeg, webp, bmp, tif, tiff"


def as_list(folders: Folders | None) -> list[str]:
    """The folders of an option that may hold one or several."""
    return [] if folders is None else [folders] if isinstance(folders, str) else list(folders)


def image_folders(
    option: str, folders: Folders | None, problems: list[Problem], suffixes: Set[str] = SUFFIXES
) -> list[ImageFolder]:
    """The files with these endings in each folder; what is missing or empty is added to `problems`."""
    kind, accepted = ("images", IMAGE_ENDINGS) if suffixes == SUFFIXES else ("arrays", ", ".join(sorted(suffixes)))
    found: list[ImageFolder] = []
    for folder in as_list(folders):
        found.append(ImageFolder(folder, []))
        try:
            found[-1] = ImageFolder(folder, image_names(folder, suffixes=suffixes))
        except FileNotFoundError:
            problems.append(Problem(key=option, message=f"the folder {folder} does not exist"))
            continue
        except OSError as error:
            reason = "not a folder" if Path(folder).is_file() else (error.strerror or str(error)).lower()
            problems.append(Problem(key=option, message=f"{folder} cannot be read: {reason}"))
            continue
        if not found[-1].names:
            message = f"the folder {folder} holds no {kind}; accepted: {accepted}"
            problems.append(Problem(key=option, message=message))
    return found


def crop_size(scale: int, gt_size: int | None, lq_size: int | None, training: bool, problems: list[Problem]) -> int:
    """The LQ crop's side in px; 0 where none is given."""
    if gt_size is not None and gt_size % scale:
        message = f"found {gt_size}; accepted: a multiple of the scale, {scale}"
        problems.append(Problem(key="gt_size", message=message))
    elif gt_size is not None and lq_size is not None and gt_size != lq_size * scale:
        message = f"found {gt_size} with lq_size {lq_size} at scale {scale}; accepted: {lq_size * scale}, or one alone"
        problems.append(Problem(key="gt_size", message=message))
    elif gt_size is None and lq_size is None and training:
        message = "required key is missing; accepted: lq_size or gt_size, the side of the crop in px"
        problems.append(Problem(key="lq_size", message=message))
    return lq_size or (gt_size or 0) // scale


def paired_folders(
    dataroot_gt: Folders | None,
    dataroot_lq: Folders | None,
    problems: list[Problem],
    *,
    suffixes: Set[str] = SUFFIXES,
) -> tuple[list[ImageFolder], list[ImageFolder]]:
    """GT and LQ files by folder."""
    if not dataroot_gt:
        message = "required key is missing; accepted: a folder or a list of folders"
        problems.append(Problem(key="dataroot_gt", message=message))
    counts = len(as_list(dataroot_gt)), len(as_list(dataroot_lq))
    if dataroot_gt and dataroot_lq is not None and counts[0] != counts[1]:
        message = f"found {counts[1]} folders; accepted: one for each of dataroot_gt's {counts[0]}, in the same order"
        problems.append(Problem(key="dataroot_lq", message=message))
    gt_folders = image_folders("dataroot_gt", dataroot_gt, problems, suffixes)
    return gt_folders, image_folders("dataroot_lq", dataroot_lq, problems, suffixes)


def raise_problems(problems: list[Problem]) -> None:
    """ConfigError with all of them, if there are any."""
    if problems:
        raise ConfigError(problems)
