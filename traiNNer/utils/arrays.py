"""Reading and writing NumPy files, `.npy` and `.npz`; nothing in them is ever executed (no pickles)."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile
from torch import Tensor

from traiNNer.utils.atomic import atomic_write
from traiNNer.utils.images import ImageError

SUFFIXES = frozenset({".npy", ".npz"})
"""Endings of array files, in lower case."""

_DAMAGE = (
    *(AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError, OverflowError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, zipfile.BadZipFile, zlib.error, tokenize.TokenError, struct.error),
)
"""What numpy and zipfile raise for bytes that are not as numpy writes them."""

KINDS = "real numbers: float16, float32, float64 or integers"


class ArrayHeader(NamedTuple):
    """What a file says about its array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def array_header(path: str, key: str | None = None) -> ArrayHeader:
    """Shape and type of the array in a file; the numbers are not read.

    Args:
        path: a `.npy` or `.npz` file.
        key: which array of a `.npz`; None for its only one.

    Raises:
        ImageError: no such file or key, damaged, or not real numbers.
    """
    try:
        header = _npz_header(path, key) if _is_npz(path) else _header_of(_mapped(path))
    except _DAMAGE as error:
        raise ImageError(path, _reason(error)) from None
    if header.dtype.kind not in "fiu":
        raise ImageError(path, f"holds {_kind(header.dtype)}; accepted: {KINDS}")
    return header


def read_array(path: str, key: str | None = None) -> np.ndarray:
    """The array of a file, read-only: a `.npy` is mapped, so that only what is used is read; a `.npz` is read whole.

    Raises:
        ImageError: as `array_header`.
    """
    try:
        if not _is_npz(path):
            return _mapped(path)
        with np.load(path) as file:
            return file[_member(list(file.files), key)]
    except _DAMAGE as error:
        raise ImageError(path, _reason(error)) from None


def refuse_infinite(field: np.ndarray, path: str) -> None:
    """Raises:
    ImageError: the numbers, of the file or sample `path`, are not all finite in float32.
    """
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.asarray(field, np.float32)).all()
    if not finite:
        what = "numbers beyond float32" if np.isfinite(field).all() else "NaN or infinity"
        raise ImageError(path, f"holds {what}; accepted: finite numbers")


def write_array(path: Path, array: Tensor | np.ndarray) -> None:
    """Write a `.npy`; its folder is made, and it is replaced only when the new one is complete.

    Raises:
        ImageError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, array.detach().cpu().numpy() if isinstance(array, Tensor) else array)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, buffer.getvalue())
    except OSError as error:
        raise ImageError(path, _reason(error)) from None


def _is_npz(path: str) -> bool:
    return path.lower().endswith(".npz")


def _mapped(path: str) -> np.ndarray:
    array: np.ndarray | NpzFile = np.load(path, mmap_mode="r")
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("is a .npz by its content; accepted: the ending .npz")
    return array


def _header_of(array: np.ndarray) -> ArrayHeader:
    return ArrayHeader(array.shape, array.dtype)


def _npz_header(path: str, key: str | None) -> ArrayHeader:
    with zipfile.ZipFile(path) as file:
        names = [name.removesuffix(".npy") for name in file.namelist()]
        with file.open(f"{_member(names, key)}.npy") as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(member)
            return ArrayHeader(shape, dtype)


def _member(names: list[str], key: str | None) -> str:
    if key is not None and key not in names:
        raise ValueError(f"holds no array {key!r}; accepted: {', '.join(names) or 'none'}")
    if key is None and len(names) != 1:
        raise ValueError(
            f"holds {len(names)} arrays ({', '.join(names)}); accepted: one, or `key` with the name of one"
        )
    return names[0] if key is None else key


def _kind(dtype: np.dtype) -> str:
    return {"c": f"complex numbers ({dtype})", "O": "Python objects", "b": "true and false"}.get(dtype.kind, str(dtype))


def _reason(error: Exception) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or (error.args or [""])[0]).split())
    if "Python objects" in text or "allow_pickle" in text:
        return f"holds Python objects or is no array file; accepted: {KINDS}"
    if "mmap length" in text:
        return "is cut short"
    text = text if text[:2].isupper() else text[:1].lower() + text[1:]
    return text if isinstance(error, (OSError, ValueError)) else f"is damaged ({text or type(error).__name__})"
