"""What programs that prepare folders of images share: what they read, where they write, and work in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from traiNNer.data.dataset import image_folders, raise_problems
from traiNNer.data.pairing import ImageFolder, Pairs, pair_by_name
from traiNNer.utils.errors import ConfigError, Problem

Item = TypeVar("Item")
Result = TypeVar("Result")

_NAMED = 3


def images_in(option: str, folder: Path) -> ImageFolder:
    """The images of a folder, searched deeply.

    Raises:
        ConfigError: it is missing or empty; `option` is the key.
    """
    problems: list[Problem] = []
    (found,) = image_folders(option, str(folder), problems)
    raise_problems(problems)
    return found


def lq_partners(gt: ImageFolder, lq: ImageFolder, *, template: str = "{}") -> dict[str, str]:
    """By the name of each GT image, the path of its LQ image.

    Raises:
        ConfigError: some have none, or several.
    """
    pairs: Pairs = pair_by_name(gt, lq, template=template, all_lq=False)
    if pairs.problems:
        some = "; ".join(pairs.problems[:_NAMED]) + ("; ..." if len(pairs.problems) > _NAMED else "")
        raise ConfigError(Problem(key="--lq", message=f"{len(pairs.problems)} of {len(gt.names)} images: {some}"))
    return dict(zip(gt.names, pairs.lq, strict=True))


def refuse_used(option: str, target: Path, sources: Sequence[str]) -> None:
    """Nothing is overwritten, and results do not become input.

    Raises:
        ConfigError: the folder to write holds something, is a file, or lies in a folder that is read.
    """
    if target.exists() and not target.is_dir():
        raise ConfigError(Problem(key=option, message=f"found {target}, a file; accepted: a folder"))
    if target.is_dir() and any(target.iterdir()):
        message = f"the folder {target} is not empty; accepted: a new or empty one, as nothing is overwritten"
        raise ConfigError(Problem(key=option, message=message))
    for source in sources:
        if target.resolve().is_relative_to(Path(source).resolve()):
            message = f"found {target}, which lies in {source}; accepted: a folder outside it"
            raise ConfigError(Problem(key=option, message=message))


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, description: str
) -> list[Result]:
    """The function's results in the items' order, with a progress bar on stderr.

    Threads are enough for images: decoding, OpenCV and most of NumPy leave Python's lock. An exception ends it; items
    that were not begun are left.
    """
    import cv2  # only reading and writing images needs it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from traiNNer.utils.logging import make_console

    cv2.setNumThreads(0)  # the threads here are enough
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results: list[Result] = []
    with Progress(*columns, console=make_console()) as progress, ThreadPoolExecutor(workers) as threads:
        try:
            for result in progress.track(threads.map(function, items), total=len(items), description=description):
                results.append(result)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return results
