"""Checkpoints on the disk: their names, reading a `.state` file without running code in it, finding complete ones.

A checkpoint is a set: weights in files of their own, and `training_states/<iteration>.state` with everything else. The
state is written last and names the others with sizes and hashes; a set without it, or with a file that is not as
named, is incomplete.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, cast

import torch

from traiNNer.utils.errors import ConfigError, Problem

FORMAT_VERSION = 1
"""Of the `.state` file; raised when an older program could not read it."""

_SHOWN = 8
"""Names that a message lists; it counts the rest."""

_STATE_NAME = re.compile(r"(\d+)(_crash)?\.state")


@dataclass(frozen=True, kw_only=True)
class CheckpointFolders:
    """Where checkpoints live; any two may be the same folder."""

    models: Path
    """Release weights."""
    resume_models: Path
    """Weights that only a resume reads."""
    training_states: Path

    def role(self, name: str) -> Path:
        """The folder that a state calls `models` or `resume_models`."""
        return self.models if name == "models" else self.resume_models

    def all(self) -> list[Path]:
        """Each folder once."""
        return list(dict.fromkeys((self.models, self.resume_models, self.training_states)))


class FileEntry(TypedDict):
    """A weights file as the `.state` file names it."""

    network: str
    folder: str
    """`models` or `resume_models`."""
    name: str
    path: str
    """Relative to the state's folder, with slashes, so that it is found in a moved run; empty where there is no way."""
    size: int
    sha256: str
    resume: bool
    """Whether a resume reads this file; the others are release copies, which users may take away."""


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A complete checkpoint, verified when it was found."""

    path: Path
    """The `.state` file."""
    iteration: int
    weights: dict[str, Path]
    """Weights file of each network."""
    crash: bool = False
    """Saved after an unexpected error, perhaps in the middle of a step."""
    passed_over: tuple[str, ...] = ()
    """One line for each newer checkpoint that is not usable."""

    def object_state(self, name: str) -> dict[str, Any] | None:
        """State of one tracked object, read from the file; None if the checkpoint lacks it."""
        entry = read_state(self.path)["objects"].get(name)
        return None if entry is None else entry["state"]


def state_name(iteration: int, *, crash: bool = False) -> str:
    """Name of the `.state` file of an iteration."""
    return f"{iteration}{'_crash' if crash else ''}.state"


def list_states(folder: Path) -> list[tuple[int, bool, Path]]:
    """(iteration, after a crash, file) of every state in a folder, the best to resume from first.

    That is the newest by its number, with those that were saved after an error behind all others.
    """
    found = [(match, path) for path in _files(folder) if (match := _STATE_NAME.fullmatch(path.name))]
    states = [(int(match[1]), match[2] is not None, path) for match, path in found]
    return sorted(states, key=lambda state: (not state[1], state[0]), reverse=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def latest_complete(folders: CheckpointFolders) -> tuple[ResumePoint | None, list[str]]:
    """The checkpoint that `auto_resume` takes, and a line for each newer one that it passed over.

    It is the newest complete one; one that was saved after an error only if there is no other.
    """
    states = list_states(folders.training_states)
    passed_over: list[str] = []
    for iteration, crash, path in states:
        try:
            point = find_state(path, folders)
        except ConfigError as error:
            passed_over.append(f"checkpoint {iteration} passed over: {error}")
            continue
        if not crash:
            passed_over += [
                f"checkpoint {number} passed over: it was saved after an error; path.resume_state: {other} takes it"
                for number, crashed, other in states
                if crashed and number > iteration
            ]
        return replace(point, passed_over=tuple(passed_over)), passed_over
    return None, passed_over


def set_aside_newer(folders: CheckpointFolders, iteration: int) -> list[str]:
    """Rename the states of later iterations, so that resuming later follows the run that goes on from this one.

    Weights stay; a state is taken up again by removing the ending `.aside` from its name. Returns the new names.
    """
    renamed: list[str] = []
    for number, _, path in reversed(list_states(folders.training_states)):
        if number > iteration:
            target = path.with_name(f"{path.name}.aside")
            os.replace(path, target)
            renamed.append(target.name)
    return renamed


def find_iteration(folders: CheckpointFolders, iteration: int) -> ResumePoint:
    """The checkpoint of an iteration.

    Raises:
        ConfigError: there is none, or it is incomplete.
    """
    path = folders.training_states / state_name(iteration)
    if not path.is_file():
        saved = sorted(number for number, crash, _ in list_states(folders.training_states) if not crash)
        accepted = ", ".join(map(str, saved)) if saved else "none, this run has no checkpoint"
        raise ConfigError(
            Problem(message=f"found {iteration}, but there is no {path}; accepted, the saved iterations: {accepted}")
        )
    return find_state(path, folders)


def find_state(path: Path, folders: CheckpointFolders) -> ResumePoint:
    """The checkpoint of a `.state` file, here or elsewhere, with all its weights files verified.

    Raises:
        ConfigError: the file is missing, damaged or not one of ours, or a weights file is not as it names it.
    """
    state = read_state(path)
    entries: list[FileEntry] = [entry for entry in state["files"] if entry["resume"]]
    weights: dict[str, Path] = {}
    problems: list[str] = []
    for entry in entries:
        file, problem = _locate(entry, path, folders)
        if file is None:
            problems.append(problem)
        else:
            weights[entry["network"]] = file
    if problems:
        raise ConfigError(Problem(file=str(path), message=f"the checkpoint is incomplete: {'; '.join(problems)}"))
    return ResumePoint(path=path, iteration=state["iteration"], weights=weights, crash=state["crash"])


def _locate(entry: FileEntry, state_file: Path, folders: CheckpointFolders) -> tuple[Path | None, str]:
    """The weights file, beside the state as when it was written, else in this run's folders; or what is wrong."""
    beside = [Path(os.path.normpath(state_file.parent / entry["path"]))] if entry["path"] else []
    candidates = [*beside, folders.role(entry["folder"]) / Path(entry["name"]).name]
    problem = f"{candidates[0]} is missing"
    for candidate in candidates:
        if not candidate.is_file():
            continue
        size = candidate.stat().st_size
        if size != entry["size"]:
            problem = f"{candidate} has {size:,} bytes instead of {entry['size']:,}"
        elif sha256(candidate) != entry["sha256"]:
            problem = f"{candidate} is not the file that was saved (its SHA-256 differs)"
        else:
            return candidate, ""
    return None, problem


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path) -> dict[str, Any]:
    """Content of a `.state` file. No code in the file can run.

    Raises:
        ConfigError: it is missing, damaged, of traiNNer-redux, of a newer traiNNer, or would run code.
    """
    if not path.is_file():
        raise _problem(path, "found no such file; accepted: a .state file")
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, _NoArchiveError):
        raise _explanation(path) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _problem(path, f"the file is damaged or cut short ({reason})") from None
    return _checked(path, content)


def _checked(path: Path, content: Any) -> dict[str, Any]:
    state = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    if state.keys() >= _REDUX_KEYS and "format_version" not in state:
        raise _redux(path)
    if not state.keys() >= {"format_version", "iteration", "objects", "files"}:
        raise _problem(path, "found a file that is not a training state; accepted: a .state file of this program")
    version = state["format_version"]
    if version > FORMAT_VERSION:
        raise _problem(
            path,
            f"found format {version}, written by traiNNer {state.get('environment', {}).get('traiNNer', '')}; "
            f"accepted: format {FORMAT_VERSION} or older; use that traiNNer or a later one",
        )
    return state


_REDUX_KEYS = {"iter", "optimizers", "schedulers"}


def _redux(path: Path) -> ConfigError:
    return _problem(
        path,
        "found a training state of traiNNer-redux: its weights load, the optimizer's state does not; "
        "use path.pretrain_network_g with its net_g_*.safetensors to start from them",
    )


_FOLDER = 0x10
"""Marks a folder in an archive; torch would read such a record as empty."""


class _NoArchiveError(Exception):
    """The file is something else altogether, perhaps a bare pickle."""


def _check_archive(path: Path) -> None:
    """A state is a zip archive with a checksum for every record; torch does not compare them when it reads.

    Raises:
        zipfile.BadZipFile: a byte of it has changed, or its end is missing.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (b"PK", b"") and not zipfile.is_zipfile(path):
        raise _NoArchiveError
    with zipfile.ZipFile(path) as archive:
        if any(
            record.compress_type != zipfile.ZIP_STORED or record.external_attr & _FOLDER for record in archive.filelist
        ):
            raise zipfile.BadZipFile("its directory is not as it was written")
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} differs")


def _explanation(path: Path) -> ConfigError:
    """Why torch does not read a file, or why it is not asked to."""
    opcodes = list(_opcodes(path))
    if {argument for name, argument in opcodes if "UNICODE" in name} >= _REDUX_KEYS:
        return _redux(path)
    names = listed(_globals(opcodes))
    refusal = f"refused: it would run code ({names})" if names != "nothing" else "found a file that is no checkpoint"
    return _problem(path, f"{refusal}; accepted: a .state file of this program")


def _opcodes(path: Path) -> Iterator[tuple[str, Any]]:
    """Instructions of a file's pickle, listed without being followed."""
    import pickletools

    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            data = archive.read(pickles[0]) if pickles else b""
    stream = io.BytesIO(data)
    try:
        while stream.tell() < len(data):  # torch's old format is several pickles in a row
            for opcode, argument, _ in pickletools.genops(stream):
                yield opcode.name, argument
    except ValueError:  # what follows is no pickle
        return


def _globals(opcodes: Iterable[tuple[str, Any]]) -> set[str]:
    """Functions and classes that a pickle names, other than those of tensors and plain containers."""
    recent: list[str] = []
    found: set[str] = set()
    for name, argument in opcodes:
        if "UNICODE" in name:
            recent.append(argument)
        elif name == "GLOBAL":
            found.add(argument.replace(" ", "."))
        elif name == "STACK_GLOBAL" and len(recent) > 1:
            found.add(".".join(recent[-2:]))
    return {name for name in found if not name.startswith(("torch.", "collections."))}


def _problem(path: Path, message: str) -> ConfigError:
    return ConfigError(Problem(file=str(path), message=message))


def listed(names: Iterable[str]) -> str:
    """Names in a row, the first few and the number of the rest."""
    names = sorted(names)
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{rest}" if names else "nothing"
