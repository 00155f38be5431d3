"""Sizes of images from their headers, without decoding: PNG, JPEG, WebP, BMP and TIFF, told apart by content.

Written out because the pre-flight reads tens of thousands of headers, wants the size of the *stored* pixels (Pillow
turns it by an orientation tag for some formats and not for others), and has no use for a limit on the size.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})


class ImageHeader(NamedTuple):
    """What an image file says about itself."""

    kind: str
    """`png`, `jpeg`, `webp`, `bmp` or `tiff`."""
    height: int
    """px, of the stored pixels: orientation tags are not applied."""
    width: int
    """px, likewise."""
    alpha: bool
    """There is a transparency channel, palette or colour."""
    channels: int
    """Stored channels, alpha included; a palette is one."""


def read_header(file: BinaryIO) -> ImageHeader:
    """The header of an open image file, positioned at its start.

    Raises:
        ValueError: no image of these formats, or a damaged header; the message is the reason in a few words.
    """
    start = file.read(32)
    try:
        header = _parse(file, start)
    except (struct.error, IndexError):
        raise ValueError("the header is cut short") from None
    if header.height < 1 or header.width < 1:
        raise ValueError(f"the header gives a size of {header.width} x {header.height} px")
    return header


def _parse(file: BinaryIO, start: bytes) -> ImageHeader:
    if not start:
        raise ValueError("the file is empty")
    if start.startswith(PNG_SIGNATURE):
        return _png(file, start)
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg(file)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _webp(start)
    if start.startswith(b"BM"):
        return _bmp(start)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(file)
    raise ValueError("not a PNG, JPEG, WebP, BMP or TIFF image")


def _png(file: BinaryIO, start: bytes) -> ImageHeader:
    width, height, _, colour = struct.unpack(">IIBB", start[16:26])
    if start[12:16] != b"IHDR" or colour not in _PNG_COLOURS:
        raise ValueError("the PNG header is damaged")
    alpha = colour in (4, 6) or _png_has_chunk(file, b"tRNS")
    return ImageHeader("png", height, width, alpha, _PNG_COLOURS[colour])


def _png_has_chunk(file: BinaryIO, wanted: bytes) -> bool:
    """Whether a chunk stands before the pixels."""
    file.seek(33)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (wanted, b"IDAT", b"IEND"):
            return kind == wanted
        file.seek(length + 4, 1)
    return False


def _jpeg(file: BinaryIO) -> ImageHeader:
    file.seek(2)
    while (byte := file.read(1)) == b"\xff":
        while (byte := file.read(1)) == b"\xff":
            pass
        marker = byte[0]
        if marker in _JPEG_BARE:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if marker in _JPEG_FRAMES:
            _, height, width, channels = struct.unpack(">BHHB", file.read(6))
            return ImageHeader("jpeg", height, width, False, channels)
        file.seek(length - 2, 1)
    raise ValueError("the JPEG header is damaged or cut short")


def _webp(start: bytes) -> ImageHeader:
    kind = start[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(start[24:27], "little") + 1
        height = int.from_bytes(start[27:30], "little") + 1
        return _webp_header(height, width, bool(start[20] & 0x10))
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", start[21:25])
        return _webp_header((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, bool(bits >> 28 & 1))
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", start[26:30])
        return _webp_header(height & 0x3FFF, width & 0x3FFF, False)
    raise ValueError("the WebP header is damaged")


def _webp_header(height: int, width: int, alpha: bool) -> ImageHeader:
    return ImageHeader("webp", height, width, alpha, 4 if alpha else 3)


def _bmp(start: bytes) -> ImageHeader:
    (size,) = struct.unpack("<I", start[14:18])
    if size == 12:  # OS/2's header
        width, height, _, bits = struct.unpack("<HHHH", start[18:26])
    else:
        width, height, _, bits = struct.unpack("<iiHH", start[18:30])
    return ImageHeader("bmp", abs(height), width, False, 1 if bits <= 8 else 3)


def _tiff(file: BinaryIO) -> ImageHeader:
    from traiNNer.utils import tiff  # imports tifffile, 0.1 s that only TIFF needs

    return tiff.header(file)
