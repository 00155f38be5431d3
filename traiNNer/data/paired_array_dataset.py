"""Pairs of LQ and GT fields from NumPy files, or GT fields whose LQ is their average over squares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import AfterValidator, Field

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
)
from traiNNer.data.normalization import SMALLEST, dumped, identity, normalized, statistics
from traiNNer.data.pairing import pair_by_name
from traiNNer.data.transforms import FieldKinds, Orientation, draw_corner, draw_orientation
from traiNNer.types import Normalization, Sample
from traiNNer.utils.arrays import SUFFIXES, array_header, read_array, refuse_infinite
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.images import ImageError
from traiNNer.utils.registry import DATASETS


def _mean_and_std(value: Any) -> Any:
    if isinstance(value, dict):
        sizes = [len(value.get(name, ())) for name in ("mean", "std")]
        good = set(value) == {"mean", "std"} and sizes[0] == sizes[1] > 0
        if not good or min(value["std"]) < SMALLEST:
            raise ValueError("{mean: [...], std: [...]} with a number for each channel, std above 0 in float32")
    return value


NormalizationOption = Annotated[
    Literal["none", "training"] | dict[str, list[float]] | None,
    AfterValidator(_mean_and_std),
    Field(
        description="What fields are normalized by, channel by channel: `none`; `training`: mean and standard deviation"
        " of the training set's GT; or {mean: [...], std: [...]}. Default: none for the training set, and the training"
        " set's (of test.py: the one in the weights) for the others."
    ),
]
Channel = Annotated[int, Field(ge=0)]

LOOKED_AT = 64 * 2**20
"""Numbers in GT; a validation set of no more is read before the start, in about a second."""


class _Pair(NamedTuple):
    """One sample: where its frames are, and how large; `frame` is None where a file is one field."""

    gt: str
    lq: str | None
    frame: int | None
    height: int
    width: int
    """Of LQ, px."""

    def path(self, file: str) -> str:
        """The name of the sample in messages and results."""
        return file if self.frame is None else f"{file}[{self.frame}]"


@DATASETS.register("PairedArrayDataset")
class PairedArrayDataset:
    """Pairs of fields from .npy or .npz: in training a random crop at the same place of both; otherwise whole.

    A pair has the same name (`filename_tmpl` applied) at the same place under the two folders. A file holds (H, W) or
    (C, H, W); with `time_axis` (T, H, W) or (T, C, H, W), each time a sample of its own. Without `dataroot_lq`, LQ is
    the mean of GT over squares of `scale` x `scale` (what exceeds a multiple of the scale at the right and bottom is
    left out). A `.npy` is mapped into memory, so that a crop reads its own part of a large file; `.npz` are read whole
    for every sample, so `.npy` are better for many times in a file.

    Flips and transposition are off by default: few fields are as likely when they are mirrored. They change vectors
    and pseudoscalars too, so say which channels these are.

    Shapes: `lq` (C, h, w), `gt` (C, h * scale, w * scale), in training h = w = lq_size; with `lq_path`, `gt_path`.
    Range: float32, (value - mean) / std with the numbers of `normalization`. NaN and infinity are refused.
    Reference: crop and orientation as in BasicSR, Wang et al., https://github.com/XPixelGroup/BasicSR.

    ```yaml
    datasets:
      train:
        name: turbulence
        type: PairedArrayDataset
        dataroot_gt: datasets/turbulence/train/gt
        dataroot_lq: datasets/turbulence/train/lq
        lq_size: 32
        normalization: training
        use_hflip: true
        use_rot: true
        vector_channels: [0, 1]
    ```

    Raises:
        ConfigError: folders missing or empty, options that disagree with each other.
    """

    def __init__(
        self,
        *,
        name: Name = "",
        phase: Phase = "train",
        scale: Scale,
        dataroot_gt: Annotated[
            Folders | None, Field(description="Folder or folders of GT arrays, searched deeply.")
        ] = None,
        dataroot_lq: Annotated[
            Folders | None,
            Field(description="Folders of LQ arrays, one for each of GT's; without it LQ is made from GT."),
        ] = None,
        filename_tmpl: FilenameTemplate = "{}",
        key: Annotated[
            str | None, Field(description="Name of the array in .npz files; not needed where they hold one.")
        ] = None,
        time_axis: Annotated[bool, Field(description="The first axis is time; every time is a sample.")] = False,
        gt_size: Annotated[int | None, Field(ge=1, description="Side of the GT crop in training, px.")] = None,
        lq_size: Annotated[int | None, Field(ge=1, description="Side of the LQ crop in training, px.")] = None,
        normalization: NormalizationOption = None,
        use_hflip: Annotated[bool, Field(description="Flip horizontally at random in training.")] = False,
        use_rot: Annotated[bool, Field(description="Flip vertically and transpose at random in training.")] = False,
        vector_channels: Annotated[
            tuple[Channel, Channel] | None,
            Field(description="Channels of a vector's components along the width and along the height (down)."),
        ] = None,
        pseudoscalar_channels: Annotated[
            tuple[Channel, ...], Field(description="Channels that a reflection negates, such as vorticity.")
        ] = (),
        io_backend: Backend = {"type": "disk"},  # noqa: B006 - a default as the option file writes it
    ) -> None:
        self.name, self.scale, self.training = name, scale, phase == "train"
        self.use_hflip, self.use_rot, self.key = use_hflip, use_rot, key
        self._kinds = FieldKinds(vector_channels, pseudoscalar_channels)
        self._stated = normalization
        problems: list[Problem] = []
        self.lq_size = crop_size(scale, gt_size, lq_size, self.training, problems)
        gt, lq = paired_folders(dataroot_gt, dataroot_lq, problems, suffixes=SUFFIXES)
        raise_problems(problems)
        self._folders = {"gt": as_list(dataroot_gt), "lq": as_list(dataroot_lq)}
        files: list[tuple[str, str | None]] = []
        self._wrong: list[str] = []
        if dataroot_lq is None:
            files = [(folder.path(name), None) for folder in gt for name in folder.names]
        else:
            for gt_folder, lq_folder in zip(gt, lq, strict=True):
                pairs = pair_by_name(gt_folder, lq_folder, template=filename_tmpl, all_lq=True)
                files += zip(pairs.gt, pairs.lq, strict=True)
                self._wrong += pairs.problems
        self._channels = 0
        self._pairs = [pair for gt_file, lq_file in files for pair in self._samples(gt_file, lq_file, time_axis)]
        self._wrong += self._kinds.problems(self._channels) if self._pairs else []
        self._normalization = identity(max(self._channels, 1))

    def _samples(self, gt: str, lq: str | None, time_axis: bool) -> Iterator[_Pair]:
        """The samples of a pair of files; what is wrong with them is noted instead."""
        try:
            shape = self._shape(gt, time_axis)
            small = None if lq is None else self._shape(lq, time_axis)
        except ImageError as error:
            self._wrong.append(str(error))
            return
        problem = self._problem(shape, small)
        self._channels = self._channels or shape[1]
        if shape[1] != self._channels:
            problem = problem or f"has {shape[1]} channels, but the files before it have {self._channels}"
        if problem:
            self._wrong.append(f"{gt if lq is None else lq}: {problem}")
            return
        height, width = shape[2] // self.scale, shape[3] // self.scale
        for frame in range(shape[0]):
            yield _Pair(gt, lq, frame if time_axis else None, height, width)

    def _shape(self, file: str, time_axis: bool) -> tuple[int, ...]:
        """(T, C, H, W) of a file."""
        shape = array_header(file, self.key).shape
        axes = len(shape) - time_axis
        if axes not in (2, 3) or 0 in shape:
            accepted = "(T, H, W) or (T, C, H, W), as time_axis is true" if time_axis else "(H, W) or (C, H, W)"
            hint = "" if time_axis or len(shape) != 4 else "; with time_axis: true (T, C, H, W)"
            raise ImageError(file, f"has the shape {shape}; accepted: {accepted}{hint}")
        times = shape[:1] if time_axis else (1,)
        rest = shape[1:] if time_axis else shape
        return (*times, *((1, *rest) if axes == 2 else rest))

    def _problem(self, gt: tuple[int, ...], lq: tuple[int, ...] | None) -> str:
        """What is wrong with a pair's (T, C, H, W), or an empty string; about LQ where there is one."""
        scale = self.scale
        small = (*gt[:2], gt[2] // scale, gt[3] // scale)
        exact = gt[2] % scale == 0 and gt[3] % scale == 0
        if lq is not None and (lq != small or (self.training and not exact)):
            needed = _size((*lq[:2], lq[2] * scale, lq[3] * scale))
            return f"is {_size(lq)}, but its GT is {_size(gt)}; at scale {scale} GT must be {needed}"
        least = self.lq_size if self.training else 1
        if min(small[2:]) < least:
            side = f"{least * scale} px for GT" if lq is None else f"{least} px for LQ"
            return f"is {_size(gt if lq is None else lq)}, smaller than the crop of {side}"
        return ""

    def __len__(self) -> int:
        """Number of pairs, each time one of its own."""
        return len(self._pairs)

    @property
    def channels(self) -> int:
        """Channels of every sample."""
        return self._channels

    @property
    def normalization(self) -> Normalization:
        """What its samples are normalized by."""
        return self._normalization

    def normalize_by(self, known: Normalization | None) -> None:
        """Settle the normalization, see `FieldDataset`.

        Raises:
            ConfigError: it has other channels, or is another than a validation set's own option says; files of a
                training set that hold NaN or infinity.
        """
        stated = self._stated
        if self.training and known is not None:
            pass  # a run that is resumed goes on with its numbers, whatever the option says by now
        elif isinstance(stated, Mapping):
            known = self._agreed(Normalization(mean=tuple(stated["mean"]), std=tuple(stated["std"])), known)
        elif stated == "none" or (stated is None and self.training):
            known = self._agreed(identity(self.channels), known)
        elif stated == "training" and known is None:
            if not self.training:
                message = "found training, but the weights do not say what they were trained with"
                raise ConfigError(Problem(key="normalization", message=f"{message}; accepted: none, or mean and std"))
            known = statistics(self._whole_frames(), self.channels)
        known = known or identity(self.channels)
        if len(known.mean) != self.channels:
            message = f"found numbers for {len(known.mean)} channels, but the data has {self.channels}"
            raise ConfigError(Problem(key="normalization", message=f"{message}; accepted: one for each channel"))
        self._normalization = known

    @staticmethod
    def _agreed(own: Normalization, training: Normalization | None) -> Normalization:
        if training is not None and training != own:
            message = f"found another than the network was trained with, {dumped(training)}"
            raise ConfigError(Problem(key="normalization", message=f"{message}; accepted: leaving it out"))
        return own

    def _whole_frames(self) -> Iterator[np.ndarray]:
        file, array = "", np.empty(0)
        for pair in self._pairs:
            try:
                if pair.gt != file:  # once for all its times: a .npz is read whole
                    file, array = pair.gt, read_array(pair.gt, self.key)
                frame = _frame(array, pair.frame)
                refuse_infinite(frame, pair.path(file))
            except ImageError as error:
                raise ConfigError(str(error)) from None
            yield frame

    def _infinite(self) -> Iterator[str]:
        """What NaN and infinity there are in a set that is not too large to be looked at."""
        pixels = sum(pair.height * pair.width for pair in self._pairs) * self.scale**2
        files = [(pair, pair.gt) for pair in self._pairs]
        files += [(pair, pair.lq) for pair in self._pairs if pair.lq is not None]
        last, array = "", np.empty(0)
        for pair, file in files if pixels * self._channels <= LOOKED_AT else ():
            try:
                last, array = (last, array) if file == last else (file, read_array(file, self.key))
                refuse_infinite(_frame(array, pair.frame), pair.path(file))
            except ImageError as error:
                yield str(error)

    def stored_sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Pair `index`, normalized float32; see the class.

        Raises:
            ImageError: a file cannot be read, has changed, or holds NaN or infinity.
        """
        pair, scale = self._pairs[index], self.scale
        lq_file = pair.gt if pair.lq is None else pair.lq
        (top, left), (height, width), orientation = (0, 0), (pair.height, pair.width), Orientation()
        if self.training:
            top, left = draw_corner(generator, height, width, self.lq_size)
            orientation = draw_orientation(generator, use_hflip=self.use_hflip, use_rot=self.use_rot)
            height = width = self.lq_size
        gt = self._window(pair, pair.gt, np.array((top, left, height, width)) * scale)
        if pair.lq is None:
            lq = gt.reshape(len(gt), height, scale, width, scale).mean((2, 4))
        else:
            lq = self._window(pair, pair.lq, np.array((top, left, height, width)))
        finished = [normalized(self._kinds.orient(each, orientation), self._normalization) for each in (lq, gt)]
        lq, gt = (torch.from_numpy(np.ascontiguousarray(each)) for each in finished)
        return {"lq": lq, "gt": gt, "lq_path": pair.path(lq_file), "gt_path": pair.path(pair.gt)}

    def sample(self, index: int, generator: np.random.Generator) -> Sample:
        """The same: fields have no other form in the files."""
        return self.stored_sample(index, generator)

    def _window(self, pair: _Pair, file: str, window: np.ndarray) -> np.ndarray:
        """(C, height, width) float64 of a file; `window` is (top, left, height, width), px of that file."""
        top, left, height, width = window.tolist()
        try:
            view = _frame(read_array(file, self.key), pair.frame)[:, top : top + height, left : left + width]
        except IndexError:
            view = np.empty(0)
        if view.shape != (self._channels, height, width):
            raise ImageError(file, "has changed since the program was started")
        refuse_infinite(view, pair.path(file))
        return np.array(view, np.float64)

    def describe(self) -> dict[str, Any]:
        """Facts for the start-up table."""
        crop = f"GT {self.lq_size * self.scale} px, LQ {self.lq_size} px" if self.training else "whole fields"
        mean, std = ([f"{value:.4g}" for value in each] for each in (self.normalization.mean, self.normalization.std))
        return {
            "name": self.name,
            "fields": len(self),
            "channels": self.channels,
            "crop": crop,
            "mean": " ".join(mean),
            "std": " ".join(std),
            "gt": ", ".join(self._folders["gt"]),
            "lq": ", ".join(self._folders["lq"]) or "made from GT, means of squares",
        }

    @property
    def smallest(self) -> tuple[int, str] | None:
        """Shortest side (px) that a validation compares with its ground truth, and whose."""
        return min(((min(pair.height, pair.width) * self.scale, pair.gt) for pair in self._pairs), default=None)

    def files(self) -> list[str]:
        """None of them is an image; their headers were read when the data set was made."""
        return []

    def inputs(self) -> list[str]:
        """The name of each sample's LQ, or of the GT from which it is made."""
        return [pair.path(pair.lq or pair.gt) for pair in self._pairs]

    def check(self, headers: Headers) -> list[str]:
        """Files without a partner, unreadable, of other sizes or channels, or smaller than the crop."""
        return self._wrong + ([] if self.training else list(self._infinite()))


def _frame(array: np.ndarray, frame: int | None) -> np.ndarray:
    """(C, H, W) of a file's array, a view."""
    array = array if frame is None else array[frame]
    return array if array.ndim == 3 else array[None]


def _size(shape: tuple[int, ...]) -> str:
    times = f"{shape[0]} times " if shape[0] > 1 else ""
    channels = f"{shape[1]} channel{'s' if shape[1] > 1 else ''} of "
    return f"{times}{channels}{shape[3]} x {shape[2]} px"
