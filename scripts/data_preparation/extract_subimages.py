"""Cut a folder of images into tiles: `python scripts/data_preparation/extract_subimages.py INPUT OUTPUT`.

Training reads small tiles much faster than large images. INPUT is searched deeply, and OUTPUT gets the same
sub-folders: `a/b.jpg` becomes `a/b_s001.png`, `a/b_s002.png`, ... row by row, without loss and with the depth of the
file. Tiles overlap where --step is less than --size, and the last ones of a row and a column end at the image's border.

With --lq and --scale the LQ images are cut at the same places, and OUTPUT gets the folders `gt` and `lq`, whose files
have the same names. --size and --step are those of GT.

Nothing is overwritten: OUTPUT has to be new or empty.

Exit code: 0 all images done, 1 some could not be used (each is named, the others are done), 2 nothing was done.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How images are cut; px of GT."""

    size: int
    step: int
    least: int
    keep_small: bool
    scale: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """An image to cut: what is read, and the names of the tiles without `_s001.png`."""

    gt: str
    lq: str | None
    gt_target: Path
    lq_target: Path | None


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of an image."""

    tiles: int = 0
    small: bool = False
    """Smaller than a tile."""
    problem: str = ""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; wrong use ends with exit code 2, as argparse does it."""
    parser = argparse.ArgumentParser(
        prog="extract_subimages.py",
        description="Cut a folder of images into overlapping tiles.",
        epilog="Example: python scripts/data_preparation/extract_subimages.py DIV2K_train_HR tiles"
        " --lq DIV2K_train_LR_x2 --scale 2 --filename-tmpl '{}x2'",
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help="folder of images, searched deeply")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for the tiles, new or empty")
    parser.add_argument("--size", type=_count, default=512, metavar="PX", help="side of a tile (default: 512)")
    parser.add_argument("--step", type=_count, metavar="PX", help="from one tile to the next (default: half the size)")
    parser.add_argument(
        "--thresh-size",
        type=_count_or_0,
        default=0,
        metavar="PX",
        help="a rest of no more than this at the border gets no tile of its own (default: 0)",
    )
    parser.add_argument(
        "--small",
        choices=("skip", "keep"),
        default="skip",
        help="what to do with images that are smaller than a tile: skip them (default) or keep them whole",
    )
    parser.add_argument("--lq", type=Path, metavar="FOLDER", help="LQ images of INPUT's, to be cut at the same places")
    parser.add_argument("--scale", type=_count, default=1, metavar="N", help="GT size / LQ size, with --lq")
    parser.add_argument(
        "--filename-tmpl", default="{}", metavar="TEXT", help="LQ's name without ending, {} is GT's (default: {})"
    )
    parser.add_argument(
        "--workers", type=_count, default=os.cpu_count() or 1, metavar="N", help="threads (default: one a core)"
    )
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: a whole number, at least 1")
    return int(text)


def _count_or_0(text: str) -> int:
    return 0 if text == "0" else _count(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and cut; returns the exit code."""
    arguments = parse(argv)
    from traiNNer.cli import ending_with_message

    return ending_with_message(lambda: extract(arguments))


def extract(arguments: argparse.Namespace) -> int:
    """Cut what the command line names.

    Raises:
        ConfigError: folders or sizes that cannot be used (exit code 2).
        RunError: a tile cannot be written (exit code 1).
    """
    from traiNNer.data.folder_work import in_threads

    cut = settings(arguments)
    work = plan(arguments)
    done = in_threads(
        lambda each: cut_image(each, cut), work, workers=arguments.workers, description="cutting images into tiles"
    )
    failures = [result.problem for result in done if result.problem]
    for failure in failures:
        print(f"skipped: {failure}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(work)} images could not be used", file=sys.stderr)
    small = sum(result.small for result in done)
    if small:
        fate = "kept whole" if cut.keep_small else "skipped (--small keep takes them whole)"
        print(f"{small} of {len(work)} images smaller than a tile: {fate}")
    tiles = sum(result.tiles for result in done)
    print(f"{tiles} tiles{' of each kind' if arguments.lq else ''} in {arguments.output}")
    return 1 if failures else 0


def settings(arguments: argparse.Namespace) -> Cut:
    """The sizes of the command line, which must fit each other.

    Raises:
        ConfigError: they do not.
    """
    from traiNNer.utils.errors import ConfigError

    size, scale = arguments.size, arguments.scale
    step = arguments.step or max(size // 2 // scale * scale, scale)
    if arguments.lq is None and scale != 1:
        raise ConfigError("--scale: found it without --lq, the folder of LQ images that it is about")
    for option, value in (("--size", size), ("--step", step)):
        if value % scale:
            raise ConfigError(f"{option}: found {value}; accepted: a multiple of the scale, {scale}")
    keep = arguments.small == "keep"
    return Cut(size=size, step=step, least=arguments.thresh_size, keep_small=keep, scale=scale)


def plan(arguments: argparse.Namespace) -> list[Work]:
    """Every image to cut.

    Raises:
        ConfigError: folders missing, empty, or in use; images without a partner, or whose tiles would have one name.
    """
    from traiNNer.data.folder_work import images_in, lq_partners, refuse_used

    gt = images_in("INPUT", arguments.input)
    lq = None if arguments.lq is None else images_in("--lq", arguments.lq)
    refuse_used("OUTPUT", arguments.output, [folder.root for folder in (gt, lq) if folder is not None])
    partners = {} if lq is None else lq_partners(gt, lq, template=_template(arguments.filename_tmpl))
    _refuse_equal(gt.names)
    gt_root = arguments.output if lq is None else arguments.output / "gt"
    return [
        Work(
            gt=gt.path(name),
            lq=partners.get(name),
            gt_target=(gt_root / name).with_suffix(""),
            lq_target=None if lq is None else (arguments.output / "lq" / name).with_suffix(""),
        )
        for name in gt.names
    ]


def _template(text: str) -> str:
    from traiNNer.utils.errors import ConfigError

    try:
        usable = text.format("\0").count("\0") == 1
    except (IndexError, KeyError, ValueError):
        usable = False
    if not usable:
        raise ConfigError(f"--filename-tmpl: found {text!r}; accepted: a name without ending with {{}} in it")
    return text


def _refuse_equal(names: Sequence[str]) -> None:
    """Two images of one name in one folder, such as `a.png` and `a.jpg`, would overwrite each other's tiles."""
    from traiNNer.utils.errors import ConfigError

    known: dict[str, str] = {}
    for name in names:
        first = known.setdefault(os.path.splitext(name)[0].lower(), name)
        if first != name:
            raise ConfigError(f"INPUT: found {first} and {name}, whose tiles would have the same names; rename one")


def cut_image(work: Work, cut: Cut) -> Done:
    """Cut an image, or a pair of them.

    Raises:
        RunError: a tile cannot be written.
    """
    from traiNNer.data.tiles import tiles_of
    from traiNNer.utils.images import ImageError, read_image

    try:
        gt = read_image(work.gt)
        lq = gt if work.lq is None else read_image(work.lq)
    except ImageError as error:
        return Done(problem=str(error))
    height, width = lq.shape[:2]
    scale = cut.scale
    extra = gt.shape[0] - height * scale, gt.shape[1] - width * scale
    if not all(0 <= more < scale for more in extra):
        sizes = f"{work.gt} has {gt.shape[1]} x {gt.shape[0]} px"
        return Done(problem=f"{work.lq}: has {width} x {height} px, but {sizes}; accepted: {scale} times as many")
    small = min(height, width) * scale < cut.size
    if small and not cut.keep_small:
        return Done(small=True)
    tiles = tiles_of(height, width, size=cut.size // scale, step=cut.step // scale, least=cut.least // scale)
    for number, (top, left, rows, columns) in enumerate(tiles, 1):
        ending = f"_s{number:03d}.png"
        enlarged = [edge * scale for edge in (top, top + rows, left, left + columns)]
        write(work.gt_target, ending, gt[enlarged[0] : enlarged[1], enlarged[2] : enlarged[3]])
        if work.lq_target is not None:
            write(work.lq_target, ending, lq[top : top + rows, left : left + columns])
    return Done(tiles=len(tiles), small=small)


def write(target: Path, ending: str, pixels: np.ndarray) -> None:
    """Write a tile; the disk is not waited for, as it would be for files that must not be lost.

    Raises:
        RunError: it cannot be written, or is there already.
    """
    from traiNNer.utils.errors import RunError
    from traiNNer.utils.images import encode_image

    path = target.with_name(f"{target.name}{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(encode_image(path, pixels))
    except OSError as error:
        raise RunError(f"{path}: {(error.strerror or str(error)).lower()}") from None


if __name__ == "__main__":
    sys.exit(main())
