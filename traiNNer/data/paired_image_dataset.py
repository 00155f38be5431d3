"""Pairs of LQ and GT images from folders, or GT images whose LQ is made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from traiNNer.data.dataset import (
    Backend,
    FilenameTemplate,
    Folders,
    Headers,
    Name,
    Phase,
    Scale,
    as_list,
    crop_size,
    paired_folders,
    raise_problems,
    unit_range_sample,
)
from traiNNer.data.downscale import downscale
from traiNNer.data.pairing import ImageFolder, names_in_meta_info, pair_by_name, select_named
from traiNNer.data.transforms import Orientation, draw_corner, draw_orientation
from traiNNer.types import Sample
from traiNNer.utils.errors import Problem
from traiNNer.utils.image_headers import ImageHeader
from traiNNer.utils.images import ImageError, read_image, to_tensor
from traiNNer.utils.registry import DATASETS


@DATASETS.register("PairedImageDataset")
class PairedImageDataset:
    """Pairs of images: in training a random crop at the same place of both, flipped and turned alike; else whole.

    A pair has the same name (`filename_tmpl` applied) at the same place under the two folders; suffixes may differ.
    Without `dataroot_lq`, LQ is GT shrunk by bicubic interpolation with antialiasing (`downscale.downscale`). GT must
    be exactly `scale` times as large as LQ; in validation up to scale - 1 px more are cut off at the right and
    bottom, as BasicSR does for the benchmark sets, and so they are where LQ is made.

    Shapes: `lq` (3, h, w) and `gt` (3, h * scale, w * scale), in training h = w = lq_size; with `lq_path`, `gt_path`.
    Range: RGB float32 in [0, 1] (`stored_sample`: the files' uint8 or uint16).
    Reference: crop and orientation as in BasicSR, Wang et al., https://github.com/XPixelGroup/BasicSR.

    ```yaml
    datasets:
      train:
        name: photographs
        type: PairedImageDataset
        dataroot_gt: datasets/photographs/hr
        dataroot_lq: datasets/photographs/lr
        lq_size: 64
    ```

    Raises:
        ConfigError: folders missing or empty, sizes that disagree with the scale or each other.
    """

    channels = 3

    def __init__(
        self,
        *,
        name: Name = "",
        phase: Phase = "train",
        scale: Scale,
        dataroot_gt: Annotated[
            Folders | None, Field(description="Folder or folders of GT images, searched deeply.")
        ] = None,
        dataroot_lq: Annotated[
            Folders | None,
            Field(description="Folders of LQ images, one for each of GT's; without it LQ is made from GT."),
        ] = None,
        filename_tmpl: FilenameTemplate = "{}",
        meta_info: Annotated[
            str | None, Field(description="Text file with the GT names to use, one a line, relative to their folder.")
        ] = None,
        gt_size: Annotated[int | None, Field(ge=1, description="Side of the GT crop in training, px.")] = None,
        lq_size: Annotated[int | None, Field(ge=1, description="Side of the LQ crop in training, px.")] = None,
        use_hflip: Annotated[bool, Field(description="Flip horizontally at random in training.")] = True,
        use_rot: Annotated[bool, Field(description="Flip vertically and transpose at random in training.")] = True,
        io_backend: Backend = {"type": "disk"},  # noqa: B006 - a default as the option file writes it
    ) -> None:
        self.name, self.scale, self.training = name, scale, phase == "train"
        self.use_hflip, self.use_rot = use_hflip, use_rot
        problems: list[Problem] = []
        self.lq_size = crop_size(scale, gt_size, lq_size, self.training, problems)
        gt_folders, lq_folders = paired_folders(dataroot_gt, dataroot_lq, problems)
        if meta_info is not None:
            gt_folders = _named(Path(meta_info), gt_folders, problems)
        raise_problems(problems)
        self.gt_paths: list[str] = []
        self.lq_paths: list[str] | None = None if dataroot_lq is None else []
        self._unpaired: list[str] = []
        self._smallest: tuple[int, str] | None = None
        self._folders = {"gt": as_list(dataroot_gt), "lq": as_list(dataroot_lq)}
        self._pair(gt_folders, lq_folders, template=filename_tmpl, all_lq=meta_info is None)

    def _pair(self, gt: list[ImageFolder], lq: list[ImageFolder], *, template: str, all_lq: bool) -> None:
        if self.lq_paths is None:
            self.gt_paths = [folder.path(name) for folder in gt for name in folder.names]
            return
        for gt_folder, lq_folder in zip(gt, lq, strict=True):
            pairs = pair_by_name(gt_folder, lq_folder, template=template, all_lq=all_lq)
            self.lq_paths += pairs.lq
            self.gt_paths += pairs.gt
            self._unpaired += pairs.problems

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.gt_paths)

    def sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Pair `index` as float32 in [0, 1]; see the class."""
        return unit_range_sample(self.stored_sample(index, generator))

    def stored_sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Pair `index` in the files' depth, uint8 or uint16; see the class.

        Raises:
            ImageError: a file cannot be read, or has not the size that it must have.
        """
        gt_path = self.gt_paths[index]
        lq_path = gt_path if self.lq_paths is None else self.lq_paths[index]
        gt = read_image(gt_path)
        lq = None if self.lq_paths is None else read_image(lq_path)
        problem = self._size_problem(gt.shape[:2], None if lq is None else lq.shape[:2])
        if problem:
            raise ImageError(lq_path, problem)
        height, width = (gt.shape[0] // self.scale, gt.shape[1] // self.scale) if lq is None else lq.shape[:2]
        top, left, orientation = 0, 0, Orientation()
        if self.training:
            top, left = draw_corner(generator, height, width, self.lq_size)
            orientation = draw_orientation(generator, use_hflip=self.use_hflip, use_rot=self.use_rot)
            height = width = self.lq_size
        if lq is None:
            lq = downscale(gt, self.scale, top=top, left=left, height=height, width=width)
        else:
            lq = _window(lq, top, left, height, width)
        gt = _window(gt, top * self.scale, left * self.scale, height * self.scale, width * self.scale)
        return {
            "lq": to_tensor(orientation.apply(lq)),
            "gt": to_tensor(orientation.apply(gt)),
            "lq_path": lq_path,
            "gt_path": gt_path,
        }

    def describe(self) -> dict[str, Any]:
        """Facts for the start-up table."""
        crop = f"GT {self.lq_size * self.scale} px, LQ {self.lq_size} px" if self.training else "whole images"
        source = ", ".join(self._folders["lq"]) or "made from GT, bicubic with antialiasing"
        return {
            "name": self.name,
            "images": len(self),
            "crop": crop,
            "gt": ", ".join(self._folders["gt"]),
            "lq": source,
        }

    @property
    def smallest(self) -> tuple[int, str] | None:
        """Shortest side (px) that a validation compares with its ground truth, and whose; known after `check`."""
        return self._smallest

    def files(self) -> list[str]:
        """Every image file that it reads."""
        return self.gt_paths + (self.lq_paths or [])

    def inputs(self) -> list[str]:
        """The file of each sample's LQ, or that of the GT from which it is made."""
        return list(self.gt_paths if self.lq_paths is None else self.lq_paths)

    def check(self, headers: Headers) -> list[str]:
        """Files without a partner, unreadable, of the wrong size ratio, or smaller than the crop."""
        problems = list(self._unpaired)
        for index, gt_path in enumerate(self.gt_paths):
            paths = [gt_path] if self.lq_paths is None else [gt_path, self.lq_paths[index]]
            found = [headers[path] for path in paths]
            unreadable = [
                f"{path}: {header}" for path, header in zip(paths, found, strict=True) if isinstance(header, str)
            ]
            problems += unreadable
            if not unreadable:
                sizes = [(header.height, header.width) for header in found if isinstance(header, ImageHeader)]
                side = min(sizes[0]) // self.scale * self.scale
                self._smallest = min(self._smallest or (side, gt_path), (side, gt_path))
                problem = self._size_problem(sizes[0], sizes[1] if len(sizes) > 1 else None)
                problems += [f"{paths[-1]}: {problem}"] if problem else []
        return problems

    def _size_problem(self, gt: tuple[int, ...], lq: tuple[int, ...] | None) -> str:
        """What is wrong with the (height, width) of a pair, or an empty string; about LQ where there is one."""
        scale = self.scale
        small = (gt[0] // scale, gt[1] // scale)
        exact = (gt[0], gt[1]) == (small[0] * scale, small[1] * scale)
        if lq is not None and (tuple(lq) != small or (self.training and not exact)):
            expected = f"{lq[1] * scale} x {lq[0] * scale}"
            return f"is {lq[1]} x {lq[0]} px, but its GT is {gt[1]} x {gt[0]}; at scale {scale} it must be {expected}"
        least = self.lq_size if self.training else 1
        if min(small) < least:
            side = f"{least * scale} px for GT" if lq is None else f"{least} px for LQ"
            size = gt if lq is None else lq
            return f"is {size[1]} x {size[0]} px, smaller than the crop of {side}"
        return ""


def _window(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    return image[top : top + height, left : left + width]


def _named(meta_info: Path, folders: list[ImageFolder], problems: list[Problem]) -> list[ImageFolder]:
    """The folders with only the GT files that `meta_info` names."""
    try:
        wanted = names_in_meta_info(meta_info)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(key="meta_info", message=f"{meta_info} cannot be read: {error}"))
        return folders
    selected = [ImageFolder(folder.root, select_named(folder.names, wanted)) for folder in folders]
    there = {name for folder in selected for name in folder.names}
    missing = [name for name in wanted if name not in there]
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        message = f"{len(missing)} names of {meta_info} are not in dataroot_gt: {some}"
        problems.append(Problem(key="meta_info", message=message))
    elif not wanted:
        problems.append(Problem(key="meta_info", message=f"{meta_info} names no image"))
    return selected
