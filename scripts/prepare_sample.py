"""Cut training tiles from scikit-image's bundled photographs into datasets/sample, for the quickstart.

    python scripts/prepare_sample.py              prepare what is missing; nothing happens when all is there

Photographs for validation are never cut into tiles for training. LQ images are GT images at half the size (bicubic
with antialiasing, as torch does it), so that a x2 network learns to undo the reduction. The same photographs give the
same files; a preparation that was interrupted is done again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SCALE = 2
TILE = 128
"""Side of a GT tile, px."""
FORMAT = 1
"""Counted up whenever this script would write other files than before."""
TRAINING = ("astronaut.png", "rocket.jpg", "ihc.png", "motorcycle_left.png", "hubble_deep_field.jpg")
VALIDATION = ("chelsea.png", "coffee.png")
"""Files of scikit-image's wheel, so that nothing is downloaded. Left out: the retina, smooth and by far the largest,
and the right view of the motorcycle, too like the left one for either list."""
RECORD = "complete.json"
"""Written last; says what the folder was made from."""
TARGET = Path(__file__).resolve().parent.parent / "datasets" / "sample"


def prepare(target: Path) -> bool:
    """Write the sample data set to `target` unless it is there; True when it was written.

    The files are made in a folder beside the target, which gets its name at the end: what has the name is complete.

    Raises:
        FileExistsError: the folder holds something that this script did not write; it is left alone.
    """
    wanted = {"format": FORMAT, "scale": SCALE, "training": list(TRAINING), "validation": list(VALIDATION)}
    record = target / RECORD
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) == wanted:
        return False
    if target.exists() and not record.exists():
        raise FileExistsError(f"{target} exists and was not written by this script; move it away or remove it")
    unfinished, outdated = (target.with_name(f"{target.name}.{ending}") for ending in ("unfinished", "outdated"))
    for folder in (unfinished, outdated):
        shutil.rmtree(folder, ignore_errors=True)
    write_all(unfinished)
    (unfinished / RECORD).write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    if target.exists():
        os.replace(target, outdated)
    os.replace(unfinished, target)
    shutil.rmtree(outdated, ignore_errors=True)
    return True


def write_all(folder: Path) -> None:
    """Write every tile and every validation photograph below `folder`."""
    for name in TRAINING:
        for row, column, tile in tiles(photograph(name)):
            write_pair(folder / "train", f"{Path(name).stem}_{row:04d}_{column:04d}", tile)
    for name in VALIDATION:
        image = photograph(name)
        height, width = (side - side % SCALE for side in image.shape[:2])
        write_pair(folder / "val", Path(name).stem, image[:height, :width])


def photograph(name: str) -> np.ndarray:
    """One of scikit-image's bundled photographs as (H, W, 3) uint8 RGB."""
    import numpy as np
    import skimage
    from PIL import Image

    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return np.asarray(image.convert("RGB"))


def tiles(image: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Tiles that cover the image without a gap, as (top, left, pixels); the last ones overlap their neighbours."""
    height, width = image.shape[:2]
    for top in positions(height):
        for left in positions(width):
            yield top, left, image[top : top + TILE, left : left + TILE]


def positions(length: int) -> list[int]:
    """Where the tiles begin along a side of this length, px."""
    starts = list(range(0, length - TILE + 1, TILE))
    return starts if length % TILE == 0 else [*starts, length - TILE]


def write_pair(folder: Path, name: str, gt: np.ndarray) -> None:
    """Write GT and the LQ image made from it as `gt/NAME.png` and `lq/NAME.png`."""
    from PIL import Image

    for kind, pixels in (("gt", gt), ("lq", halved(gt))):
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)


def halved(image: np.ndarray) -> np.ndarray:
    """The (H, W, 3) uint8 image at half the size, antialiased bicubic, rounded to 8 bits."""
    import torch
    from torch.nn import functional

    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    small = functional.interpolate(tensor, scale_factor=1 / SCALE, mode="bicubic", antialias=True)
    return small.round().clamp(0, 255).byte()[0].permute(1, 2, 0).contiguous().numpy()


def main() -> int:
    """Command line: `--target FOLDER` to write elsewhere."""
    parser = argparse.ArgumentParser(description="Prepare the quickstart's sample photographs.")
    parser.add_argument("--target", type=Path, default=TARGET, help="folder to write (default: %(default)s)")
    target = parser.parse_args().target
    try:
        written = prepare(target)
    except OSError as error:
        print(f"prepare_sample: {error}", file=sys.stderr)
        return 1
    if written:
        counts = [len(list((target / phase / "gt").iterdir())) for phase in ("train", "val")]
        print(f"prepared {target}: {counts[0]} pairs for training, {counts[1]} photographs for validation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
