"""Upscale images with a weights file alone: `python scripts/upscale.py --weights X.safetensors INPUT OUTPUT`.

The network is built from the metadata in the weights (or recognized by its weights, for files of other programs).
INPUT is an image or a folder; a folder is searched deeply, and OUTPUT gets the same sub-folders. PNG, JPEG, WebP, BMP
and TIFF of any kind are read; transparency is dropped. Results have 8 bits a channel, also those of 16-bit images:
PNG in a folder, the format that OUTPUT's ending names for a single image.

With weights that were trained on fields, INPUT is a .npy or a folder of them: (H, W) or (C, H, W), or (T, C, H, W),
whose times are upscaled one by one. Results are .npy, float32 in the units of INPUT.

Exit code: 0 all images done, 1 some images failed (each is named, the others are done), 2 nothing was done.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    import torch
    from torch import nn

    from traiNNer.inference import Upscaler


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; wrong use ends with exit code 2, as argparse does it."""
    parser = argparse.ArgumentParser(
        prog="upscale.py",
        description="Upscale an image or a folder of images with the network of a weights file.",
        epilog="Example: python scripts/upscale.py --weights net_g_ema_latest.safetensors photos photos_x2",
    )
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="an image or .npy, or a folder that is searched deeply"
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the image to write, or the folder for the results")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help=".safetensors or .pth")
    parser.add_argument(
        "--tile-size",
        type=_pixels,
        default=0,
        metavar="PX",
        help="run images in tiles of this side, px of the input; 0: whole, or in tiles when memory is short (default)",
    )
    parser.add_argument(
        "--tile-overlap",
        type=_pixels,
        default=0,
        metavar="PX",
        help="how much more of the image a tile sees on each side, px; 0: as much as the network needs (default)",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps, xpu")
    parser.add_argument("--half", action="store_true", help="compute in float16, where device and network can")
    return parser.parse_args(argv)


def _pixels(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: a number of pixels, at least 0")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and upscale; returns the exit code."""
    arguments = parse(argv)
    from traiNNer.cli import ending_with_message

    return ending_with_message(lambda: upscale_files(arguments))


def upscale_files(arguments: argparse.Namespace) -> int:
    """Upscale what the command line names.

    Raises:
        ConfigError: input, output, weights or device that cannot be used (exit code 2).
    """
    from traiNNer.archs.from_weights import network_from_weights
    from traiNNer.inference import Upscaler
    from traiNNer.utils.errors import RunError
    from traiNNer.utils.images import ImageError
    from traiNNer.utils.logging import configure_logging, make_console

    configure_logging(make_console())
    fields = reads_fields(arguments.input)
    work = plan(arguments.input, arguments.output, fields=fields)
    device = choose_device(arguments.device)
    net = network_from_weights(arguments.weights).eval()
    net = prepare(net, device, half=arguments.half, fields=fields)
    upscaler = Upscaler(net, tile_size=arguments.tile_size, tile_overlap=arguments.tile_overlap)
    failures = 0
    for number, (source, target) in enumerate(work, 1):
        started = time.perf_counter()
        try:
            size = (upscale_field if fields else upscale_file)(upscaler, source, target)
        except (ImageError, RunError) as error:
            failures += 1
            text = str(error) if str(source) in str(error) else f"{source}: {error}"
            print(f"failed: {text}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - started
        print(f"[{number}/{len(work)}] {source} -> {target} ({size}, {seconds:.1f} s)", flush=True)
    if failures:
        print(f"{failures} of {len(work)} {'fields' if fields else 'images'} failed", file=sys.stderr)
    return 1 if failures else 0


def upscale_file(upscaler: Upscaler, source: Path, target: Path) -> str:
    """Upscale one file; returns the result's size.

    Raises:
        ImageError: a file cannot be read or written.
        RunError: out of memory even with the smallest tiles.
    """
    from traiNNer.utils.images import image_header, read_image, to_float, write_image

    if image_header(source).alpha:
        print(f"{source}: transparency is dropped", file=sys.stderr)
    result = upscaler(to_float(read_image(source))[None])
    write_image(target, result)
    return f"{result.shape[-1]}x{result.shape[-2]} px"


def upscale_field(upscaler: Upscaler, source: Path, target: Path) -> str:
    """Upscale one `.npy`; returns the result's size.

    Raises:
        ImageError: a file cannot be read or written, or its array is not one for the network.
        RunError: out of memory even with the smallest tiles.
    """
    import numpy as np
    import torch

    from traiNNer.data.normalization import identity, normalized, physical
    from traiNNer.utils.arrays import array_header, read_array, refuse_infinite, write_array
    from traiNNer.utils.images import ImageError

    info = upscaler.info
    shape = array_header(str(source)).shape
    by_axes = {2: (1, 1, *shape), 3: (1, *shape), 4: shape}
    if len(shape) not in by_axes or by_axes[len(shape)][1] != info.in_channels or 0 in shape:
        accepted = f"(C, H, W) or (T, C, H, W) with C = {info.in_channels}, as the network takes"
        raise ImageError(source, f"has the shape {shape}; accepted: {accepted}")
    normalization = info.normalization or identity(info.in_channels)
    results = []
    for each in read_array(str(source)).reshape(by_axes[len(shape)]):
        refuse_infinite(each, str(source))
        result = upscaler(torch.from_numpy(normalized(np.array(each), normalization))[None])
        results.append(physical(result.float().cpu(), normalization)[0].numpy())
    result = np.stack(results) if len(shape) == 4 else results[0] if len(shape) == 3 else results[0][0]
    write_array(target, result)
    return f"{result.shape[-1]}x{result.shape[-2]} px"


def reads_fields(source: Path) -> bool:
    """Whether INPUT is a `.npy`, or a folder that holds some and no image."""
    from traiNNer.utils.images import image_names

    if not source.is_dir():
        return source.suffix.lower() == ".npy"
    return not image_names(source) and bool(image_names(source, suffixes={".npy"}))


def plan(source: Path, target: Path, *, fields: bool = False) -> list[tuple[Path, Path]]:
    """Every image or field to read, with the file to write.

    Raises:
        ConfigError: nothing to read, or nowhere to write.
    """
    from traiNNer.utils.errors import ConfigError
    from traiNNer.utils.images import SUFFIXES, image_names

    written, suffixes = (".npy", frozenset({".npy"})) if fields else (".png", SUFFIXES)
    endings = ", ".join(sorted(suffixes))
    if source.suffix.lower() == ".npz":
        raise ConfigError(f"INPUT: found {source}; accepted: .npy, into which its array must be saved, or images")
    if source.is_file():
        target = target / f"{source.stem}{written}" if target.is_dir() else target
        if target.suffix.lower() not in suffixes:
            raise ConfigError(f"OUTPUT: found {target}; accepted: an existing folder, or a file ending in {endings}")
        if target.resolve() == source.resolve():
            raise ConfigError(f"OUTPUT: found {target}, which is the input; accepted: another file")
        return [(source, target)]
    if not source.is_dir():
        raise ConfigError(f"INPUT: found {source}, which does not exist; accepted: an image or a folder")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"OUTPUT: found {target}, a file; accepted: a folder, as INPUT is one")
    if target.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"OUTPUT: found {target}, which lies in INPUT; accepted: a folder outside it")
    images = [source / name for name in image_names(source, suffixes=suffixes)]
    if not images:
        raise ConfigError(f"INPUT: found no images in {source}; accepted: {endings}, or .npy for weights of fields")
    return [(image, target / name) for image, name in zip(images, _result_names(source, images, written), strict=True)]


def _result_names(source: Path, images: Sequence[Path], suffix: str) -> list[Path]:
    """`a/b.png` for `a/b.jpg`; where two images would get one name, each keeps its ending: `b.jpg.png`."""
    relative = [image.relative_to(source) for image in images]
    names = [path.with_suffix(suffix) for path in relative]
    lowered = [str(name).lower() for name in names]  # file systems may take upper and lower case for the same
    return [
        path.with_name(f"{path.name}{suffix}") if lowered.count(low) > 1 else name
        for path, name, low in zip(relative, names, lowered, strict=True)
    ]


def choose_device(name: str) -> torch.device:
    """The device of that name, which must be there; `auto` is the accelerator if there is one.

    Raises:
        ConfigError: no such device.
    """
    import torch

    from traiNNer.utils.errors import ConfigError

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    there = ["cpu"]
    if accelerator is not None:
        count = torch.accelerator.device_count()
        there += [accelerator.type, *(f"{accelerator.type}:{number}" for number in range(count))]
    if name not in there:
        raise ConfigError(f"--device: found {name!r}; accepted here: auto, {', '.join(there)}")
    return torch.device(name)


def prepare(net: nn.Module, device: torch.device, *, half: bool, fields: bool = False) -> nn.Module:
    """The network on its device, in float16 if that is asked for and possible.

    Raises:
        ConfigError: a network of images that does not turn RGB into RGB; images for one of fields, or the reverse.
    """
    from traiNNer.inference import network_info
    from traiNNer.utils.errors import ConfigError

    info = network_info(net)
    if info.normalization is not None and not fields:
        text = f"--weights: found {info.type}, trained on fields"
        raise ConfigError(f"{text}; accepted for INPUT: .npy, or a folder with .npy and without images")
    if fields and info.normalization is None and info.parameters:  # of a file that says what it was trained on
        raise ConfigError(f"--weights: found {info.type}, trained on images; accepted for INPUT: images, not .npy")
    if not fields and (info.in_channels, info.out_channels) != (3, 3):
        found = f"{info.type}, which turns {info.in_channels} channels into {info.out_channels}"
        raise ConfigError(f"--weights: found a network of type {found}; accepted: RGB to RGB")
    if half and (device.type == "cpu" or not info.supports_half):
        print(f"--half has no effect: {info.type} on {device.type} computes in float32", file=sys.stderr)
        half = False
    return net.half().to(device) if half else net.to(device)


if __name__ == "__main__":
    sys.exit(main())
