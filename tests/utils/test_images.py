"""Every format, depth and kind of pixel against references that are written from NumPy arrays."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from traiNNer.utils.images import ImageError, find_images, image_header, image_size, read_image, to_float, write_image

HEIGHT, WIDTH = 13, 18
DRAW = np.random.default_rng(0)
COARSE = Image.fromarray(DRAW.integers(0, 256, (4, 5, 3), dtype=np.uint8))
PHOTO = np.asarray(COARSE.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
ALPHA = DRAW.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
ALPHA[:3, :3] = 0
DEEP = DRAW.integers(0, 65536, (HEIGHT, WIDTH, 4), dtype=np.uint16)

Case = tuple[bytes, np.ndarray, bool]
"""File, RGB in [0, 1] as float64, and whether it has transparency."""


def grey(values: np.ndarray, white: int) -> np.ndarray:
    return np.repeat(values[..., None] / white, 3, axis=2)


def png(values: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file written by hand, so that no library's idea of the format is tested against itself."""
    rows = values.reshape(len(values), -1)
    if bits < 8:
        per_byte = 8 // bits
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % per_byte))).reshape(len(rows), -1, per_byte)
        rows = (rows << (8 - bits * np.arange(1, per_byte + 1))).sum(axis=2)
    raw = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def png_cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    palette = DRAW.integers(0, 256, (256, 3), dtype=np.uint8)
    for bits in (1, 2, 4, 8, 16):
        white = 2**bits - 1
        values = DRAW.integers(0, white + 1, (HEIGHT, WIDTH))
        cases[f"png grey {bits}"] = png(values, bits, 0), grey(values, white), False
        see_through = (b"tRNS", struct.pack(">H", 1))
        cases[f"png grey {bits} transparent"] = png(values, bits, 0, see_through), grey(values, white), True
        if bits < 16:
            entries = (b"PLTE", palette[: white + 1].tobytes())
            cases[f"png palette {bits}"] = png(values, bits, 3, entries), palette[values] / 255, False
            file = png(values, bits, 3, entries, (b"tRNS", bytes([0, 128])))
            cases[f"png palette {bits} transparent"] = file, palette[values] / 255, True
    for bits in (8, 16):
        white = 2**bits - 1
        for channels, colour in ((2, 4), (3, 2), (4, 6)):
            values = DRAW.integers(0, white + 1, (HEIGHT, WIDTH, channels))
            values[:3, :3, -1] = 0
            expected = grey(values[..., 0], white) if channels == 2 else values[..., :3] / white
            cases[f"png {channels} x {bits}"] = png(values, bits, colour), expected, channels != 3
    gamma = (b"gAMA", struct.pack(">I", 100000))
    cases["png with gamma"] = png(PHOTO.astype(int), 8, 2, gamma), PHOTO / 255, False
    return cases


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(file: bytes) -> np.ndarray:
    """What Pillow, another decoder than ours, reads."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) / 255


def pillow_cases() -> dict[str, Case]:
    photo, palette = Image.fromarray(PHOTO), Image.fromarray(PHOTO).quantize(16)
    seen = Image.fromarray(np.dstack([PHOTO, ALPHA]))
    turned = Image.Exif()
    turned[0x112] = 6
    files = {
        "jpeg": saved(photo, "JPEG"),
        "jpeg 444": saved(photo, "JPEG", subsampling=0, quality=95),
        "jpeg progressive": saved(photo, "JPEG", progressive=True),
        "jpeg grey": saved(photo.convert("L"), "JPEG"),
        "jpeg cmyk": saved(photo.convert("CMYK"), "JPEG"),
        "jpeg turned": saved(photo, "JPEG", exif=turned),
        "png turned": saved(photo, "PNG", exif=turned),
        "webp turned": saved(photo, "WEBP", lossless=True, exif=turned),
        "webp": saved(photo, "WEBP"),
        "webp lossless": saved(photo, "WEBP", lossless=True),
        "webp transparent": saved(seen, "WEBP"),
        "webp lossless transparent": saved(seen, "WEBP", lossless=True, exact=True),
        "bmp black and white": saved(photo.convert("1"), "BMP"),
        "bmp grey": saved(photo.convert("L"), "BMP"),
        "bmp palette": saved(palette, "BMP"),
        "bmp": saved(photo, "BMP"),
        "bmp 32 bits": saved(seen, "BMP"),
        "tiff black and white": saved(photo.convert("1"), "TIFF"),
        "tiff fax": saved(photo.convert("1"), "TIFF", compression="group4"),
        "tiff palette": saved(palette, "TIFF"),
        "tiff lzw": saved(photo, "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(photo, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": saved(photo, "TIFF", compression="jpeg"),
        "tiff cmyk": saved(photo.convert("CMYK"), "TIFF"),
    }
    transparent = {"webp transparent", "webp lossless transparent"}
    return {name: (file, by_pillow(file), name in transparent) for name, file in files.items()}


def tiff(values: np.ndarray, photometric: str = "rgb", **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric=photometric, **options)
    return file.getvalue()


def tiff_cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name, pixels, white in (("8", np.dstack([PHOTO, ALPHA]), 255), ("16", DEEP, 65535)):
        rgb, planes = pixels[..., :3], np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))
        first, two = np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., [0, 3]])
        unassociated = {"extrasamples": ["unassalpha"]}
        cases |= {
            f"tiff rgb {name}": (tiff(rgb), rgb / white, False),
            f"tiff rgb {name} big end first": (tiff(rgb, byteorder=">"), rgb / white, False),
            f"tiff rgb {name} planes": (tiff(planes, planarconfig="separate"), rgb / white, False),
            f"tiff rgb {name} tiles": (tiff(rgb, tile=(16, 16)), rgb / white, False),
            f"tiff rgb {name} deflate": (tiff(rgb, compression="zlib", predictor=True), rgb / white, False),
            f"tiff rgb {name} turned": (tiff(rgb, extratags=[(274, "H", 1, 6, True)]), rgb / white, False),
            f"tiff grey {name}": (tiff(first, "minisblack"), grey(first, white), False),
            f"tiff grey {name} white is 0": (tiff(first, "miniswhite"), grey(white - first, white), False),
            f"tiff grey {name} alpha": (
                tiff(two, "minisblack", planarconfig="contig", **unassociated),
                grey(first, white),
                True,
            ),
            f"tiff rgba {name}": (tiff(pixels, **unassociated), rgb / white, True),
            f"tiff rgba {name} associated": (tiff(pixels, extrasamples=["assocalpha"]), rgb / white, True),
            f"tiff {name} pages": (tiff(np.stack([rgb, rgb[::-1]])), rgb / white, False),
        }
    return cases


CASES = png_cases() | pillow_cases() | tiff_cases()


@pytest.mark.parametrize("name", CASES)
def test_every_kind_is_rgb_within_a_65535th(name: str, tmp_path: Path) -> None:
    file, expected, transparent = CASES[name]
    path = tmp_path / "blätter 雪.image"  # the content says what it is
    path.write_bytes(file)
    image = to_float(read_image(path))
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert np.abs(image.permute(1, 2, 0).double().numpy() - expected).max() < 1 / 65535
    header = image_header(path)
    assert (header.height, header.width) == image_size(path) == (HEIGHT, WIDTH)
    assert header.alpha == transparent


def test_sixteen_bit_lzw_which_tifffile_cannot_unpack(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "deep.tif"
    cv2.imwrite(str(path), DEEP[..., 2::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert np.array_equal(read_image(path), DEEP[..., :3])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0, 10, 60, -40])
def test_cut_short(kind: str, kept: int, tmp_path: Path) -> None:
    noise = Image.fromarray(DRAW.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    path = tmp_path / "x.png"
    path.write_bytes(saved(noise, kind)[:kept])
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: ")


def test_damage_of_any_kind_is_an_image_error(tmp_path: Path) -> None:
    """Whatever a decoder makes of wrong bytes, it never leaves as another exception."""
    draw, path, refused = np.random.default_rng(1), tmp_path / "x", 0
    for name in ("png 3 x 16", "jpeg", "webp", "bmp palette", "tiff rgb 16 deflate", "tiff palette", "tiff rgb 8"):
        for _ in range(25):
            file = bytearray(CASES[name][0])
            for place in draw.integers(0, min(len(file), 300), draw.integers(1, 8)):
                file[place] = draw.integers(0, 256)
            path.write_bytes(file)
            try:
                image_header(path)
                read_image(path)
            except ImageError:
                refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a directory|permission denied"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("hello", encoding="utf-8"), "not a PNG, JPEG, WebP, BMP or TIFF image"),
        (lambda path: path.write_bytes(tiff(PHOTO.astype(np.float32))), "32-bit float32 samples; accepted: 8 and 16"),
    ],
)
def test_what_is_wrong_is_said(make: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    make(path)
    with pytest.raises(ImageError, match=reason):
        read_image(path)


def test_size_comes_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(CASES["png 3 x 8"][0][:60])
    assert image_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif"])
def test_written_without_loss(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / f"ü{suffix}"
    write_image(path, torch.from_numpy(PHOTO.copy()).permute(2, 0, 1)[None] / 255)
    assert np.array_equal(read_image(path), PHOTO)
    write_image(path, PHOTO[::-1])
    assert np.array_equal(read_image(path), PHOTO[::-1])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_written_values_are_clamped_and_rounded(tmp_path: Path) -> None:
    values = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0, float("nan"), 0.5]).expand(3, 1, 6)
    write_image(tmp_path / "x.png", values)
    assert read_image(tmp_path / "x.png")[0, :, 0].tolist() == [0, 0, 1, 255, 0, 128]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot write \.gif; accepted: \.bmp, \.jpeg"):
        write_image(tmp_path / "x.gif", PHOTO)
    with pytest.raises(ImageError, match="cannot be encoded"):
        write_image(tmp_path / "x.webp", np.zeros((1, 20000, 3), np.uint8))  # WebP ends at 16383 px
    assert list(tmp_path.iterdir()) == []


def test_files_are_found_in_natural_order(tmp_path: Path) -> None:
    names = ["b/1.png", "10.PNG", "2.png", "a2/x.jpeg", "a10/x.webp", "1.txt", ".hidden.png", "._2.png", ".git/3.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with contextlib.suppress(OSError):  # Windows may not allow it
        (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["2.png", "10.PNG", "a2/x.jpeg", "a10/x.webp", "b/1.png"]
    assert find_images(tmp_path, recursive=False) == [tmp_path / "2.png", tmp_path / "10.PNG"]
