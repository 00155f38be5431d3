"""Generate synthetic two-dimensional turbulence: `python scripts/generate_turbulence.py datasets/turbulence`.

Each field is a velocity (2, size, size) on a periodic square, components along the width and along the height, float32
with mean square 1. It is the curl of a stream function with random phases, thus free of divergence, and its energy
falls with the wavenumber as k^slope, -5/3 by default, from `--largest` to half the size (exclusively). There is no
dynamics in it: what a crop of high wavenumbers looks like cannot be told from the low ones.

Writes OUTPUT/{train,val}/{gt,lq}/0000.npy, ... LQ is the mean over squares of scale x scale, or with `--lq cutoff` what
remains of the wavenumbers that fit into its size, at the centers of these squares. Equal arguments give equal files; a
folder that holds others is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SLOPE = -5 / 3
STEEPEST = 10
FOLDERS = [(phase, kind) for phase in ("train", "val") for kind in ("gt", "lq")]


def turbulence(generator: np.random.Generator, size: int, *, slope: float = SLOPE, largest: int = 2) -> np.ndarray:
    """One velocity field, (2, size, size) float64 with mean square 1.

    Args:
        generator: gives the phases.
        size: px, even.
        slope: exponent of the energy in a shell of wavenumbers.
        largest: smallest wavenumber, that of the largest eddies, in waves per side.
    """
    along_height, along_width = wavenumbers(size)
    radius = np.hypot(along_width, along_height)
    kept = (radius >= largest) & (radius < size / 2)
    # A shell of radius k holds 2 pi k modes, and the velocity is k times the stream function.
    amplitude = np.where(kept, np.maximum(radius, 1.0) ** ((slope - 1) / 2 - 1), 0.0)
    noise = np.fft.fft2(generator.standard_normal((size, size)))
    stream = amplitude * noise / np.abs(noise)
    velocity = np.stack([np.fft.ifft2(-1j * along_height * stream).real, np.fft.ifft2(1j * along_width * stream).real])
    return velocity / np.sqrt(np.square(velocity).mean())


def wavenumbers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Along the height (size, 1) and along the width (1, size), waves per side."""
    axis = np.fft.fftfreq(size, 1 / size)
    return axis[:, None], axis[None, :]


def energy_spectrum(velocity: np.ndarray) -> np.ndarray:
    """Energy in the shells k - 1/2 <= |k| < k + 1/2 for k = 1, 2, ..., size / 2 - 1."""
    size = velocity.shape[-1]
    power = np.square(np.abs(np.fft.fft2(velocity) / size**2)).sum(0) / 2
    shell = np.round(np.hypot(*wavenumbers(size))).astype(int)
    return np.bincount(shell.ravel(), power.ravel())[1 : size // 2]


def averaged(field: np.ndarray, scale: int) -> np.ndarray:
    """Means over squares of scale x scale px."""
    channels, height, width = field.shape
    return field.reshape(channels, height // scale, scale, width // scale, scale).mean((2, 4))


def cut_off(field: np.ndarray, scale: int) -> np.ndarray:
    """The wavenumbers below half the smaller size, read at the centers of squares of scale x scale px."""
    size, small = field.shape[-1], field.shape[-1] // scale
    inner = _resized(np.fft.fft2(field), small) * _translation(small, (scale - 1) / size)
    return np.fft.ifft2(inner * (np.hypot(*wavenumbers(small)) < small / 2)).real / scale**2


def interpolated(field: np.ndarray, scale: int) -> np.ndarray:
    """The inverse of `cut_off`, but for the wavenumbers that it leaves out."""
    small, size = field.shape[-1], field.shape[-1] * scale
    inner = np.fft.fft2(field) * _translation(small, -(scale - 1) / size)
    return np.fft.ifft2(_resized(inner * (np.hypot(*wavenumbers(small)) < small / 2), size)).real * scale**2


def _resized(spectrum: np.ndarray, size: int) -> np.ndarray:
    """What is common to both sizes, zero elsewhere."""
    common = min(size, spectrum.shape[-1])
    result = np.zeros((len(spectrum), size, size), complex)
    old, new = ((each - common) // 2 for each in (spectrum.shape[-1], size))
    shifted = np.fft.fftshift(spectrum, axes=(1, 2))[:, old : old + common, old : old + common]
    result[:, new : new + common, new : new + common] = shifted
    return np.fft.ifftshift(result, axes=(1, 2))


def _translation(size: int, sides: float) -> np.ndarray:
    """Factors of a spectrum that moves what is at twice `sides` to the origin, along both axes.

    Pixels are read at their centers: the first of LQ lies (scale - 1) / 2 px of GT from the first of GT.
    """
    along_height, along_width = wavenumbers(size)
    return np.exp(1j * np.pi * sides * (along_height + along_width))


REDUCTIONS = {"average": averaged, "cutoff": cut_off}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; wrong use ends with exit code 2, as argparse does it."""
    parser = argparse.ArgumentParser(
        prog="generate_turbulence.py",
        description="Generate pairs of divergence-free velocity fields with an energy spectrum of k^SLOPE.",
        epilog="Example: python scripts/generate_turbulence.py datasets/turbulence --size 64 --train 128 --val 16",
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for train and val")
    parser.add_argument("--size", type=_positive, default=64, metavar="PX", help="side of GT, px (64)")
    parser.add_argument("--scale", type=_positive, default=2, help="GT size / LQ size (2)")
    parser.add_argument("--train", type=_positive, default=128, metavar="N", help="fields to train on (128)")
    parser.add_argument("--val", type=_positive, default=16, metavar="N", help="fields to validate on (16)")
    parser.add_argument("--slope", type=_slope, default=SLOPE, help="exponent of the energy spectrum (-5/3)")
    parser.add_argument(
        "--largest", type=_positive, default=2, metavar="K", help="smallest wavenumber, waves per side (2)"
    )
    parser.add_argument("--lq", choices=sorted(REDUCTIONS), default="average", help="how LQ is made (average)")
    parser.add_argument("--seed", type=_whole, default=0, help="of the phases (0)")
    found = parser.parse_args(argv)
    if found.size % (2 * found.scale):
        parser.error(f"--size: found {found.size}; accepted: a multiple of twice the scale, {2 * found.scale}")
    if found.largest >= found.size // 2:
        parser.error(f"--largest: found {found.largest}; accepted: less than half the size, {found.size // 2}")
    return found


def _positive(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: a whole number, at least {least}")
    return int(text)


def _slope(text: str) -> float:
    try:
        slope = float(text)
    except ValueError:
        slope = np.nan
    if not abs(slope) <= STEEPEST:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: a number from -{STEEPEST} to {STEEPEST}")
    return slope


def foreign(folder: Path, count: int) -> list[str]:
    """What a folder holds beside the files of so many fields; they would get into the data set."""
    own = {f"{number:04}.npy" for number in range(count)}
    return sorted({path.name for path in folder.iterdir()} - own) if folder.is_dir() else []


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; returns the exit code."""
    arguments = parse(argv)
    counts = {"train": arguments.train, "val": arguments.val}
    try:
        for folder, count in ((arguments.output / phase / kind, counts[phase]) for phase, kind in FOLDERS):
            if others := foreign(folder, count):
                text = f"{folder} holds {len(others)} other files, such as {others[0]}"
                print(f"{text}; accepted: a new folder, or one of these arguments", file=sys.stderr)
                return 2
        for split, (phase, count) in enumerate(counts.items()):
            folders = {kind: arguments.output / phase / kind for kind in ("gt", "lq")}
            for folder in folders.values():
                folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                generator = np.random.default_rng([arguments.seed, split, number])
                gt = turbulence(generator, arguments.size, slope=arguments.slope, largest=arguments.largest)
                np.save(folders["gt"] / f"{number:04}.npy", gt.astype(np.float32))
                lq = REDUCTIONS[arguments.lq](gt, arguments.scale)
                np.save(folders["lq"] / f"{number:04}.npy", lq.astype(np.float32))
    except OSError as error:
        print(f"{arguments.output} cannot be written: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.train} + {arguments.val} fields of {arguments.size} px to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
