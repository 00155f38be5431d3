"""Reading and writing image files; everything that is read is RGB.

PNG, JPEG, WebP, BMP and TIFF with 8 or 16 bits a channel; grey, palette and black-and-white become RGB, CMYK is
converted, transparency is dropped. Pixels are taken as they are stored: orientation tags (EXIF, TIFF) are ignored, in
the size as in the pixels, so that both files of a pair are treated alike. Formats are told apart by content.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traiNNer.utils.atomic import atomic_write
from traiNNer.utils.errors import TraiNNerError
from traiNNer.utils.image_headers import ImageHeader, read_header

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings of image files, in lower case."""

DEPTHS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""White in each of the stored types."""

_WRITE_OPTIONS = {".jpg": ("IMWRITE_JPEG_QUALITY", 95), ".jpeg": ("IMWRITE_JPEG_QUALITY", 95)}
_LOSSLESS_WEBP = 101


class ImageError(TraiNNerError):
    """An image file that cannot be read or written: `PATH: what is wrong`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def image_header(path: Path | str) -> ImageHeader:
    """Size, transparency and channels of an image file; reads its header only.

    Raises:
        ImageError: no such file, not an image, or a damaged header.
    """
    try:
        with Path(path).open("rb") as file:
            return read_header(file)
    except OSError as error:
        raise ImageError(path, _reason(error)) from None
    except ValueError as error:
        raise ImageError(path, str(error)) from None


def image_size(path: Path | str) -> tuple[int, int]:
    """(height, width) in px of an image file, from its header.

    Raises:
        ImageError: no such file, not an image, or a damaged header.
    """
    header = image_header(path)
    return header.height, header.width


def read_image(path: Path | str) -> np.ndarray:
    """Decode an image file.

    Returns:
        (H, W, 3) RGB, uint8 or uint16 as the file has it. It may be a view with any strides, and read-only.

    Raises:
        ImageError: no such file, damaged, or of a kind that is not supported.
    """
    try:
        data = Path(path).read_bytes()
        header = read_header(io.BytesIO(data))
        image = _decode(data, header)
    except OSError as error:
        raise ImageError(path, _reason(error)) from None
    except ValueError as error:
        raise ImageError(path, str(error)) from None
    if image.shape != (header.height, header.width, 3):
        raise ImageError(path, f"decodes to {image.shape}, but its header says {header.width} x {header.height} px")
    return image


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 or uint16 as a contiguous (3, H, W) tensor of the same type."""
    return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))


def unit_range(image: Tensor) -> Tensor:
    """uint8 or uint16 as float32 in [0, 1], value / white, on the same device; float32 is returned as it is."""
    if image.dtype == torch.float32:
        return image
    return image.to(torch.float32).div_(65535 if image.dtype == torch.uint16 else 255)


def to_float(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 or uint16 as a (3, H, W) float32 tensor in [0, 1]."""
    return unit_range(to_tensor(image))


def write_image(path: Path | str, image: Tensor | np.ndarray) -> None:
    """Write an image: PNG, WebP (lossless), JPEG (quality 95), BMP or TIFF, by the suffix.

    Args:
        path: the file; its folder is made, and it is replaced only when the new one is complete.
        image: as `encode_image` takes it.

    Raises:
        ImageError: unknown suffix, or the image cannot be encoded or written.
    """
    path = Path(path)
    data = encode_image(path, image)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
    except OSError as error:
        raise ImageError(path, _reason(error)) from None


def encode_image(path: Path | str, image: Tensor | np.ndarray) -> bytes:
    """What a file of that name holds; see `write_image`.

    Args:
        path: the file, which is not written.
        image: (3, H, W) or (1, 3, H, W) float RGB, clamped to [0, 1] and rounded to 8 bits; or (H, W, 3) uint8 RGB, for
            PNG and TIFF also uint16.

    Raises:
        ImageError: unknown suffix, or the image cannot be encoded.
    """
    import cv2  # 0.13 s that only reading and writing images needs

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(
            path, f"cannot write {suffix or 'a file without suffix'}; accepted: {', '.join(sorted(SUFFIXES))}"
        )
    pixels = np.ascontiguousarray(_eight_bit(image)[..., ::-1])
    option, value = _WRITE_OPTIONS.get(suffix, ("IMWRITE_WEBP_QUALITY", _LOSSLESS_WEBP))
    parameters = [getattr(cv2, option), value] if suffix == ".webp" or suffix in _WRITE_OPTIONS else []
    try:
        done, data = cv2.imencode(suffix, pixels, parameters)
    except cv2.error as error:
        raise ImageError(path, f"cannot be encoded: {_short(error)}") from None
    if not done:
        raise ImageError(path, "cannot be encoded")
    return data.tobytes()


def find_images(folder: Path | str, *, recursive: bool = True) -> list[Path]:
    """The image files in a folder; see `image_names` for which, and their order."""
    root = Path(folder)
    return [root / name for name in image_names(root, recursive=recursive)]


def image_names(folder: Path | str, *, recursive: bool = True, suffixes: Set[str] = SUFFIXES) -> list[str]:
    """The names of the image files in a folder, found by suffix; hidden ones are left out.

    Returns:
        Names relative to `folder`, with forward slashes, in natural order (`2.png` before `10.png`), the same on
        every system.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(_image_names(Path(folder), recursive, suffixes), key=natural_key)


def natural_key(text: str) -> tuple[Any, ...]:
    """Sorts numbers in names as numbers, without regard to case; the text itself decides between equals."""
    pieces = re.split(r"([0-9]+)", text)
    return tuple(int(piece) if place % 2 else piece.casefold() for place, piece in enumerate(pieces)), text


def _image_names(root: Path, recursive: bool, suffixes: Set[str]) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise error

    visited: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        place = Path(folder).relative_to(root).as_posix()
        prefix = "" if place == "." else f"{place}/"
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield prefix + name


def _decode(data: bytes, header: ImageHeader) -> np.ndarray:
    if header.kind == "tiff":
        from traiNNer.utils import tiff  # imports tifffile, which only TIFF needs

        return tiff.decode(data)
    if header.kind == "jpeg" and header.channels == 4:
        return decode_with_pillow(data)
    return decode_with_opencv(data)


def decode_with_opencv(data: bytes) -> np.ndarray:
    """(H, W, 3) RGB with the depth of the file; ValueError with the reason where that fails."""
    import cv2  # 0.13 s that only reading and writing images needs

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f"damaged: {_short(error)}") from None
    if image is None:
        raise ValueError("damaged or cut short")
    if image.dtype not in DEPTHS:
        raise ValueError(f"has {image.dtype} samples; accepted: 8 and 16 bits a channel")
    if image.ndim == 2:
        return np.broadcast_to(image[..., None], (*image.shape, 3))
    return image[..., 2::-1]


def decode_with_pillow(data: bytes) -> np.ndarray:
    """(H, W, 3) RGB uint8 by Pillow, which knows CMYK and TIFF's rarer forms; ValueError where that fails."""
    from PIL import Image  # only CMYK and some TIFF files need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's limit on the size and remarks on odd tags
        try:
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"damaged: {error}") from None


def _eight_bit(image: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(image, np.ndarray):
        return image
    pixels = image.detach().reshape(image.shape[-3:]).to("cpu", torch.float32)
    pixels = pixels.nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels.permute(1, 2, 0).numpy()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
