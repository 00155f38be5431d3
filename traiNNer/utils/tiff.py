"""TIFF, which no one reader covers: tifffile for what it can unpack alone, Pillow for 8 bits, OpenCV for the rest.

OpenCV by itself multiplies colour by transparency, misreads 16-bit planes and 16-bit white-is-zero, and turns by the
orientation tag; Pillow reduces 16-bit colour to 8; tifffile alone has no LZW and no JPEG.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from tifffile import PHOTOMETRIC, PLANARCONFIG, TIFF, TiffFile, TiffFileError, TiffPage

from traiNNer.utils.image_headers import ImageHeader
from traiNNer.utils.images import DEPTHS, decode_with_opencv, decode_with_pillow

_PLAIN = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
_UPRIGHT = 1
_UNSIGNED = 1
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TiffFileError,
    TypeError,
    struct.error,
    zlib.error,
)
"""What tifffile raises on damaged files: it trusts the values of the tags. Found by feeding it damaged files."""


def header(file: BinaryIO) -> ImageHeader:
    """Size and channels of an open TIFF file's first page; ValueError with the reason where it is damaged."""
    file.seek(0)
    with _damage_as_reason(), TiffFile(file) as tiff:
        return _header(tiff.pages.first)


def decode(data: bytes) -> np.ndarray:
    """The first page of a TIFF file as (H, W, 3) RGB, uint8 or uint16.

    Raises:
        ValueError: damaged, or of a kind that is not supported; the message is the reason in a few words.
    """
    with _damage_as_reason(), TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        _header(page)
        if _unpacks_alone(page):
            return _samples(page)
        _refuse_unsupported(page)
        deep = page.bitspersample > 8
    return decode_with_opencv(data) if deep else decode_with_pillow(data)


@contextmanager
def _damage_as_reason() -> Generator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(f"the TIFF file is damaged: {error}") from None
    except MemoryError:
        raise ValueError("the TIFF file is damaged, or too large for this machine's memory") from None


def _header(page: TiffPage) -> ImageHeader:
    numbers = (page.imagelength, page.imagewidth, page.samplesperpixel, page.bitspersample)
    if not all(type(number) is int for number in numbers):  # damaged tags make tuples of them
        raise ValueError("the TIFF header is damaged")
    return ImageHeader("tiff", page.imagelength, page.imagewidth, bool(page.extrasamples), page.samplesperpixel)


def _unpacks_alone(page: TiffPage) -> bool:
    try:
        TIFF.DECOMPRESSORS[page.compression]
    except KeyError:
        return False
    return page.photometric in _PLAIN and page.dtype in DEPTHS and page.bitspersample in (8, 16)


def _samples(page: TiffPage) -> np.ndarray:
    """Grey or RGB samples; further channels (transparency) are left out."""
    image = page.asarray()
    if page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
        image = np.moveaxis(image, 0, -1)
    image = image.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    if page.photometric == PHOTOMETRIC.RGB:
        return image[..., :3]
    grey = image[..., :1]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        grey = ~grey
    return np.broadcast_to(grey, (*grey.shape[:2], 3))


def _refuse_unsupported(page: TiffPage) -> None:
    """What the other readers would get wrong."""
    if page.sampleformat != _UNSIGNED or page.bitspersample > 16:
        raise ValueError(f"TIFF with {page.bitspersample}-bit {page.dtype} samples; accepted: 8 and 16 bits a channel")
    tag = page.tags.get("Orientation")
    turned = tag is not None and tag.value != _UPRIGHT
    planes = page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
    straight = page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB) and page.samplesperpixel != 2
    if turned or (page.bitspersample > 8 and (planes or not straight)):
        raise ValueError(
            f"this kind of TIFF is not supported ({page.bitspersample} bits, photometric {page.photometric!s}, "
            f"compression {page.compression!s}); save it as PNG"
        )
