"""Writing the files of a checkpoint: a network's tensors made fit for a file, and the files themselves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from traiNNer.utils.atomic import FileSet, remove_leftovers
from traiNNer.utils.checkpoint_files import CheckpointFolders, FileEntry, listed, sha256
from traiNNer.utils.errors import RunError, TraiNNerError
from traiNNer.utils.plain import plain

WeightsFormat = Literal["safetensors", "pth"]

AVERAGE = "_ema"
"""Ends the name of a network that is the moving average of another."""


class SaveError(TraiNNerError):
    """Files could not be written. What was there before is as it was."""


@contextmanager
def writing(what: str, folders: CheckpointFolders) -> Generator[FileSet]:
    """Context of one save: makes the folders, clears what killed saves left, writes all files or none.

    Raises:
        SaveError: anything that kept the files from being written.
    """
    try:
        for folder in folders.all():
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        with FileSet() as files:
            yield files
    except (OSError, RuntimeError) as error:
        raise SaveError(f"{what} could not be written, earlier files are as they were: {error}") from error


def snapshot(name: str, net: nn.Module) -> dict[str, Tensor]:
    """A network's state dict with buffers, as finite, contiguous CPU tensors that share no memory with each other.

    On the CPU they may share it with the network: write them before it changes.

    Raises:
        RunError: a value is not finite.
        TypeError: the state dict holds something else than tensors.
    """
    state: dict[str, Any] = net.state_dict()
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}.{key} is a {type(tensor).__qualname__}; weights files hold tensors only")
    _require_finite(name, state)
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in state.items():
        copy: Tensor = tensor.detach().cpu().contiguous()  # host-device synchronization: a save waits for the device
        storage = copy.untyped_storage()
        if storage.nbytes() > copy.numel() * copy.element_size() or storage.data_ptr() in seen:
            copy = copy.clone()
        seen.add(copy.untyped_storage().data_ptr())
        tensors[key] = copy
    return tensors


def _require_finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    floating = {key: tensor for key, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if not floating:
        return
    device = next(iter(floating.values())).device
    finite = torch.stack([torch.isfinite(tensor).all().to(device) for tensor in floating.values()])
    finite = finite.cpu()  # host-device synchronization: one for each network that is saved
    bad = [key for key, flag in zip(floating, finite, strict=True) if not flag]
    if bad:
        raise RunError(f"{name} is not saved, because it has values that are not finite in {listed(bad)}")


class WeightsWriter:
    """Writes networks into the folders of a run; every file joins a `FileSet` and appears when that is committed.

    Args:
        folders: where.
        weights_format: of release weights. What a resume reads is always safetensors.
    """

    def __init__(self, folders: CheckpointFolders, weights_format: WeightsFormat) -> None:
        self._folders, self._format = folders, weights_format

    def release(self, files: FileSet, name: str, stem: str, tensors: dict[str, Tensor], text: dict[str, str]) -> Path:
        """Write release weights of network `name` to `models/<stem>`, with `text` as metadata; returns the path.

        A `.pth` file has the form of BasicSR and traiNNer-redux: the tensors under `params`, an average's under
        `params_ema`.
        """
        path = self.released(stem)
        if self._format == "pth":
            write_torch(files.add(path), {"params_ema" if name.endswith(AVERAGE) else "params": tensors})
        else:
            _write_safetensors(files.add(path), tensors, text)
        return path

    def released(self, stem: str) -> Path:
        """Where release weights of this name are."""
        return self._folders.models / f"{stem}.{self._format}"

    def describe(self, files: FileSet, path: Path, record: Mapping[str, Any]) -> None:
        """Write a record beside a file of this save, as JSON, with the file's name and SHA-256."""
        content = {**record, "file": path.name, "sha256": sha256(files.written(path))}
        text = json.dumps(content, indent=2) + "\n"
        files.add(path.with_suffix(".json")).write_text(text, encoding="utf-8")

    def write(
        self,
        files: FileSet,
        name: str,
        label: str,
        tensors: dict[str, Tensor],
        text: dict[str, str],
        *,
        released: bool,
        averaged: dict[str, Tensor] | None = None,
    ) -> list[FileEntry]:
        """Write one network of a checkpoint; returns what the `.state` file says of its files.

        There is a release file and one that a resume reads. They are the same where the format allows it and the
        folder is the same or the network is an average; else one file under two names, or a copy.

        Args:
            files: the save.
            name: of the network.
            label: of the checkpoint.
            tensors: what a resume reads.
            text: metadata.
            released: whether there is a release file.
            averaged: what is in the release file, if not `tensors`.
        """
        stem = f"{name}_{label}"
        copied = self._folders.resume_models / f"{stem}.safetensors"
        if not released:
            _write_safetensors(files.add(copied), tensors, text)
            return [self._entry(files, name, "resume_models", copied, resume=True)]
        path = self.release(files, name, stem, tensors if averaged is None else averaged, text)
        same_folder = self._folders.models.samefile(self._folders.resume_models)
        if averaged is not None:
            if same_folder:
                copied = copied.with_stem(f"{stem}_training")
            _write_safetensors(files.add(copied), tensors, text)
            return [
                self._entry(files, name, "models", path, resume=False),
                self._entry(files, name, "resume_models", copied, resume=True),
            ]
        if self._format == "safetensors" and (same_folder or name.endswith(AVERAGE)):
            return [self._entry(files, name, "models", path, resume=True)]
        entry = self._entry(files, name, "models", path, resume=False)
        if self._format == "safetensors":
            _link(files.written(path), files.add(copied))
            return [entry, self._entry(files, name, "resume_models", copied, resume=True, digest=entry["sha256"])]
        _write_safetensors(files.add(copied), tensors, text)
        return [entry, self._entry(files, name, "resume_models", copied, resume=True)]

    def _entry(
        self, files: FileSet, network: str, folder: str, path: Path, *, resume: bool, digest: str = ""
    ) -> FileEntry:
        written = files.written(path)
        try:
            relative = os.path.relpath(path.parent.resolve(), self._folders.training_states.resolve())
        except ValueError:  # on another drive of Windows
            relative = None
        return FileEntry(
            network=network,
            folder=folder,
            name=path.name,
            path="" if relative is None else (Path(relative) / path.name).as_posix(),
            size=written.stat().st_size,
            sha256=digest or sha256(written),
            resume=resume,
        )

    def verify(self, entries: Iterable[FileEntry]) -> None:
        """Look whether the files of a checkpoint are there.

        Raises:
            OSError: one is not, or not whole.
        """
        for entry in entries:
            path = self._folders.role(entry["folder"]) / entry["name"]
            if path.stat().st_size != entry["size"]:
                raise OSError(f"{path} has another size than was written")


def write_torch(path: Path, content: Any) -> None:
    """`torch.save` of what `weights_only=True` reads.

    Raises:
        OSError: the disk is full, or the like; torch hides it behind an error of its own.
    """
    content = plain(content, "content")
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            raise _system_error(error) from error


def _system_error(error: BaseException) -> BaseException:
    """The operating system's error that led to this one; itself if there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return error if cause is None else cause


def _write_safetensors(path: Path, tensors: dict[str, Tensor], text: dict[str, str]) -> None:
    from safetensors.torch import save  # `save_file` writes to a temporary file of its own, which a kill leaves behind

    path.write_bytes(save(tensors, metadata=text))


def _link(source: Path, copied: Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing."""
    with suppress(OSError):
        os.link(source, copied)
        return
    shutil.copyfile(source, copied)
