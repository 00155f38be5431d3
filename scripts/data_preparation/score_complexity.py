"""Score a folder of tiles by how much they hold: `python scripts/data_preparation/score_complexity.py FOLDER`.

The score lies in [0, 1): 0 for flat images, 0.5 for a typical piece of a photograph, less when it is blurred, and no
more when noise is added; docs/data-preparation.md has the formula. FOLDER is searched deeply. What reaches --threshold
is listed (names relative to FOLDER, one a line, which `meta_info` of a data set takes), copied or linked with its
sub-folders. With --lq the LQ images of the same names go with them: DEST gets the folders `gt` and `lq`.

Nothing is overwritten in DEST, which has to be new or empty.

Exit code: 0 all images scored, 1 some could not be read (each is named and left out), 2 nothing was done.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

if TYPE_CHECKING:
    from traiNNer.data.pairing import ImageFolder
    from traiNNer.utils.image_measures import ImageMeasures

BINS = 20


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An image and its score."""

    name: str
    """Relative to the folder."""
    score: float
    width: int
    height: int
    measures: ImageMeasures


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; wrong use ends with exit code 2, as argparse does it."""
    parser = argparse.ArgumentParser(
        prog="score_complexity.py",
        description="Score a folder of tiles by their complexity, and list, copy or link the best.",
        epilog="Example: python scripts/data_preparation/score_complexity.py tiles/gt --lq tiles/lq --threshold 0.5"
        " --link complexity05 --csv scores.csv --histogram scores.png",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images, searched deeply")
    parser.add_argument(
        "--threshold", type=_share, default=0.5, metavar="SCORE", help="least score to be taken (default: 0.5)"
    )
    taken = parser.add_mutually_exclusive_group()
    taken.add_argument("--list", action="store_true", help="write the names of those that reach it to stdout")
    taken.add_argument("--copy", type=Path, metavar="DEST", help="copy them into this folder")
    taken.add_argument("--link", type=Path, metavar="DEST", help="make symbolic links to them in this folder")
    parser.add_argument("--lq", type=Path, metavar="FOLDER", help="their LQ images, copied or linked with them")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all scores and measures to this table")
    parser.add_argument("--histogram", type=Path, metavar="FILE", help="draw how the scores are spread, as .png")
    parser.add_argument(
        "--workers", type=_count, default=os.cpu_count() or 1, metavar="N", help="threads (default: one a core)"
    )
    return parser.parse_args(argv)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: a number from 0 to 1")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: a whole number, at least 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and score; returns the exit code."""
    arguments = parse(argv)
    from traiNNer.cli import ending_with_message

    return ending_with_message(lambda: score_folder(arguments))


def score_folder(arguments: argparse.Namespace) -> int:
    """Score what the command line names.

    Raises:
        ConfigError: folders that cannot be used (exit code 2).
        RunError: results cannot be written (exit code 1).
    """
    from traiNNer.data.folder_work import images_in, in_threads, lq_partners, refuse_used
    from traiNNer.utils.errors import ConfigError, RunError

    folder = images_in("FOLDER", arguments.folder)
    target: Path | None = arguments.copy or arguments.link
    partners: dict[str, str] | None = None
    sources = [folder.root]
    if arguments.lq is not None:
        if target is None:
            raise ConfigError("--lq: found it without --copy or --link, which it is for")
        lq = images_in("--lq", arguments.lq)
        sources.append(lq.root)
        partners = lq_partners(folder, lq)
    if target is not None:
        refuse_used("--copy" if arguments.copy else "--link", target, sources)
    for option, file in (("--csv", arguments.csv), ("--histogram", arguments.histogram)):
        if file is not None and file.is_dir():  # said before an hour of scoring is lost
            raise ConfigError(f"{option}: found {file}, a folder; accepted: a file")
    found = in_threads(
        lambda name: score(folder, name), folder.names, workers=arguments.workers, description="scoring images"
    )
    scored = [result for result in found if isinstance(result, Scored)]
    taken = [image for image in scored if image.score >= arguments.threshold]
    try:
        write_results(arguments, scored)
        if target is not None:
            place(taken, folder, partners, target, _link if arguments.link else shutil.copy2)
    except OSError as error:
        hint = "; where links are not allowed, --copy works" if arguments.link else ""
        raise RunError(f"{error.filename or target}: {(error.strerror or str(error)).lower()}{hint}") from None
    for image in taken if arguments.list else ():
        print(image.name)
    for failure in (failures := [result for result in found if isinstance(result, str)]):
        print(f"skipped: {failure}", file=sys.stderr)
    tell(arguments, scored, len(taken), len(failures))
    return 1 if failures else 0


def score(folder: ImageFolder, name: str) -> Scored | str:
    """An image's score, or why it has none."""
    from traiNNer.data.complexity import complexity
    from traiNNer.utils.image_measures import measure_image
    from traiNNer.utils.images import ImageError, read_image

    path = folder.path(name)
    try:
        image = read_image(path)
        measures = measure_image(image)
    except ImageError as error:
        return str(error)
    except ValueError as error:  # too small
        return f"{path}: {error}"
    height, width = image.shape[:2]
    return Scored(name=name, score=complexity(measures), width=width, height=height, measures=measures)


def write_results(arguments: argparse.Namespace, scored: Sequence[Scored]) -> None:
    """Write the table and the picture that the command line asks for."""
    if arguments.csv is not None:
        arguments.csv.parent.mkdir(parents=True, exist_ok=True)
        with arguments.csv.open("w", newline="", encoding="utf-8") as file:
            write_table(file, scored)
    if arguments.histogram is not None:
        arguments.histogram.parent.mkdir(parents=True, exist_ok=True)
        draw_histogram(arguments.histogram, [image.score for image in scored], arguments.threshold)


def write_table(file: TextIO, scored: Sequence[Scored]) -> None:
    """A line for each image: its name, score, size and measures."""
    from traiNNer.utils.image_measures import ImageMeasures

    writer = csv.writer(file)
    writer.writerow(["name", "score", "width", "height", *ImageMeasures.names()])
    for image in scored:
        values = [f"{value:.6g}" for value in image.measures.by_name().values()]
        writer.writerow([image.name, f"{image.score:.4f}", image.width, image.height, *values])


def draw_histogram(file: Path, scores: Sequence[float], threshold: float) -> None:
    """Draw how many images have which score."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.hist(scores, bins=BINS, range=(0, 1), color="#4c78a8", edgecolor="white", linewidth=0.6)
    reached = sum(value >= threshold for value in scores)
    axes.axvline(threshold, color="#e45756")
    axes.set_title(f"{reached} of {len(scores)} images reach {threshold:g}", loc="left", fontsize="medium")
    axes.set(xlabel="complexity", ylabel="images", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120, format="png")


def place(
    taken: Sequence[Scored],
    folder: ImageFolder,
    partners: dict[str, str] | None,
    target: Path,
    put: Callable[[str, Path], object],
) -> None:
    """Put images and, where there are any, their LQ images into the target."""
    roots = [target] if partners is None else [target / "gt", target / "lq"]
    for root in roots:
        root.mkdir(parents=True, exist_ok=True)
    for image in taken:
        pairs = [(folder.path(image.name), roots[0] / image.name)]
        if partners is not None:
            lq = partners[image.name]
            pairs.append((lq, (roots[1] / image.name).with_suffix(Path(lq).suffix)))
        for source, destination in pairs:
            destination.parent.mkdir(parents=True, exist_ok=True)
            put(source, destination)


def _link(source: str, destination: Path) -> None:
    destination.symlink_to(Path(source).resolve())


def tell(arguments: argparse.Namespace, scored: Sequence[Scored], taken: int, failures: int) -> None:
    """Say on stderr what was found and done."""
    if failures:
        print(f"{failures} of {failures + len(scored)} images could not be scored", file=sys.stderr)
    if not scored:
        return
    ordered = sorted(image.score for image in scored)
    quartiles = [ordered[round(part * (len(ordered) - 1))] for part in (0, 0.25, 0.5, 0.75, 1)]
    spread = ", ".join(f"{value:.2f}" for value in quartiles)
    print(f"{len(scored)} images scored; least, quartiles and largest: {spread}", file=sys.stderr)
    done = next(
        (
            f", {what} {where}"
            for what, where in (("copied to", arguments.copy), ("linked in", arguments.link))
            if where
        ),
        "",
    )
    print(f"{taken} reach {arguments.threshold:g}{done}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
