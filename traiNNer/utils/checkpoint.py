"""Checkpoints: whatever changes during training is tracked once under a unique name, saved together, loaded together.

    checkpoint = Checkpoint(folders, weights_format="safetensors", save_last_n=5)
    checkpoint.track_network("net_g", net_g, metadata)
    checkpoint.track("optimizer/net_g", optimizer, required=True)
    checkpoint.save(1000, options_text=text)

    point, passed_over = latest_complete(folders)
    lines = checkpoint.load(point)

See `checkpoint_files` for what is on the disk.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from traiNNer.types import Stateful
from traiNNer.utils.checkpoint_files import (
    FORMAT_VERSION,
    CheckpointFolders,
    ResumePoint,
    find_iteration,
    find_state,
    latest_complete,
    list_states,
    listed,
    read_state,
    state_name,
)
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.logging import get_logger
from traiNNer.utils.plain import plain
from traiNNer.utils.resume import (
    check_networks,
    environment,
    environment_notices,
    ignored,
    object_obstacle,
)
from traiNNer.utils.saving import AVERAGE, SaveError, WeightsFormat, WeightsWriter, snapshot, write_torch, writing

__all__ = [
    "Checkpoint",
    "CheckpointFolders",
    "ResumePoint",
    "SaveError",
    "check_networks",
    "find_iteration",
    "find_state",
    "latest_complete",
    "read_state",
]

Metadata = Callable[[int], dict[str, str]] | dict[str, str]
"""Text about a network for its weights files, or what makes it from the iteration."""

_LOAD_FAILURES = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError)
"""What `load_state_dict` of something raises that gets a state of another shape."""


@dataclass(frozen=True)
class _Object:
    stateful: Stateful
    version: int
    required: bool
    last: bool

    def entry(self, name: str) -> dict[str, Any]:
        state = plain(self.stateful.state_dict(), name)
        return {"version": self.version, "type": type(self.stateful).__qualname__, "state": state}


@dataclass(frozen=True)
class _Network:
    net: nn.Module
    metadata: Metadata
    released: bool
    averaged: Callable[[], AbstractContextManager[None]] | None

    def average(self, name: str) -> dict[str, Tensor] | None:
        """What is released instead of the weights that are trained, if it is something else."""
        if self.averaged is None:
            return None
        with self.averaged():
            return {key: tensor.clone() for key, tensor in snapshot(name, self.net).items()}

    def text(self, iteration: int) -> dict[str, str]:
        return self.metadata(iteration) if callable(self.metadata) else self.metadata


class Checkpoint:
    """Everything of a run that changes, and its files.

    Args:
        folders: where the files are written.
        weights_format: of release weights. What a resume reads is always safetensors.
        save_last_n: checkpoints of this run that are kept; None for all. Those of other runs, the best, the latest
            and those saved after an error are never removed.
    """

    def __init__(
        self,
        folders: CheckpointFolders,
        *,
        weights_format: WeightsFormat = "safetensors",
        save_last_n: int | None = None,
    ) -> None:
        self._folders, self._save_last_n = folders, save_last_n
        self._writer = WeightsWriter(folders, weights_format)
        self._objects: dict[str, _Object] = {}
        self._networks: dict[str, _Network] = {}
        self._ledger: dict[int, list[dict[str, str]]] = {}
        self._iteration = 0

    def track(
        self, name: str, stateful: Stateful, *, version: int = 1, required: bool = False, last: bool = False
    ) -> None:
        """Add something that changes during training.

        Args:
            name: unique; `<kind>/<network>` if it belongs to a network.
            stateful: its state holds dicts, lists, tuples, numbers, strings, None and tensors.
            version: of the state's layout.
            required: a saved state that does not fit is an error, unless it is of another type (such as that of
                another optimizer); otherwise the object starts fresh.
            last: it is loaded after the others, which come in the order of their tracking: what the loading of
                another could change, such as the random generators.

        Raises:
            ValueError: something is tracked under this name.
        """
        self._require_new(name)
        self._objects[name] = _Object(stateful, version, required, last)

    def track_network(
        self,
        name: str,
        net: nn.Module,
        metadata: Metadata,
        *,
        released: bool = True,
        averaged: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        """Add a network, whose weights get files of their own.

        Args:
            name: such as `net_g`; the name of a moving average is that of its network with `_ema` behind.
            net: the network itself, not what wraps it.
            metadata: text for its weights files.
            released: write it into `models`; otherwise only what a resume reads is written.
            averaged: makes a context in which the network has the weights to release, if those that are trained are
                others; a resume reads the latter.

        Raises:
            ValueError: something is tracked under this name.
        """
        self._require_new(name)
        self._networks[name] = _Network(net, metadata, released, averaged)

    def _require_new(self, name: str) -> None:
        if name in self._objects or name in self._networks:
            raise ValueError(f"{name} is tracked already")

    def save(self, iteration: int, *, options_text: str = "", crash: bool = False) -> Path:
        """Write a checkpoint and remove those that are too old; returns its `.state` file.

        Args:
            iteration: iterations done.
            options_text: resolved options of the run, kept in the file.
            crash: after an unexpected error; a resume takes such a file only if it is named or there is no other.

        Raises:
            SaveError: it could not be written.
            RunError: weights are not finite.
        """
        self._iteration = iteration
        averages = {name: network.average(name) for name, network in self._networks.items()}
        weights = {name: snapshot(name, network.net) for name, network in self._networks.items()}
        objects = {name: tracked.entry(name) for name, tracked in self._objects.items()}
        path = self._folders.training_states / state_name(iteration, crash=crash)
        with writing(f"checkpoint {iteration}", self._folders) as files:
            entries = [
                entry
                for name, network in self._networks.items()
                for entry in self._writer.write(
                    files,
                    name,
                    path.stem,
                    weights[name],
                    network.text(iteration),
                    released=network.released,
                    averaged=averages[name],
                )
            ]
            content = {
                "format_version": FORMAT_VERSION,
                "iteration": iteration,
                "crash": crash,
                "environment": environment(self._device()),
                "options": options_text,
                "files": entries,
                "saved": self._ledger,
                "objects": objects,
            }
            write_torch(files.add(path), content)
            files.commit()
            self._writer.verify(entries)
        if not crash:
            self._ledger[iteration] = [{"folder": entry["folder"], "name": entry["name"]} for entry in entries]
            self._prune()
        return path

    def _prune(self) -> None:
        """Remove the oldest checkpoints of this run beyond `save_last_n`, each one's state first."""
        if self._save_last_n is None:
            return
        for iteration in sorted(self._ledger)[: -self._save_last_n]:
            paths = [self._folders.role(file["folder"]) / Path(file["name"]).name for file in self._ledger[iteration]]
            try:
                for path in (self._folders.training_states / state_name(iteration), *paths):
                    path.unlink(missing_ok=True)
            except OSError as error:
                get_logger().warning("checkpoint %d is kept for now, it cannot be removed: %s", iteration, error)
                continue
            del self._ledger[iteration]

    def save_best(self, label: str, value: float, iteration: int, network: str = "net_g") -> Path:
        """Keep the weights that did best by a metric, with a JSON file beside them; returns the weights file.

        They are those of the network's moving average where there is one, as they were validated.

        Raises:
            SaveError: they could not be written; the best so far are still there.
            RunError: they are not finite.
        """
        self._iteration = iteration
        name = network + AVERAGE if network + AVERAGE in self._networks else network
        stem = self.best_file(label, network).stem
        tensors = self._to_release(name)
        with writing(f"the best weights by {label}", self._folders) as files:
            path = self._writer.release(files, name, stem, tensors, self._networks[name].text(iteration))
            record = {"metric": label, "value": value, "iteration": iteration, "weights": name}
            self._writer.describe(files, path, record)
            files.commit()
        return path

    def best_file(self, label: str, network: str = "net_g") -> Path:
        """Where the weights that did best by a metric are."""
        return self._writer.released(f"{network}_best_{label.replace('/', '_')}")

    def save_latest(self) -> list[Path]:
        """Write the present weights under the names that traiNNer-redux gives those of a finished run.

        Raises:
            SaveError: they could not be written.
            RunError: they are not finite.
        """
        released = [name for name, network in self._networks.items() if network.released]
        weights = {name: self._to_release(name) for name in released}
        with writing("the latest weights", self._folders) as files:
            paths = [
                self._writer.release(files, name, f"{name}_latest", tensors, self._networks[name].text(self._iteration))
                for name, tensors in weights.items()
            ]
            files.commit()
        return paths

    def _to_release(self, name: str) -> dict[str, Tensor]:
        averaged = self._networks[name].average(name)
        return snapshot(name, self._networks[name].net) if averaged is None else averaged

    def check_fits(self, point: ResumePoint, ignore: Collection[str] = ()) -> None:
        """Compare a checkpoint with what is tracked; nothing is loaded or written.

        Raises:
            ConfigError: a network or a required object does not fit.
        """
        self._check(point, read_state(point.path)["objects"], ignore)

    def _check(self, point: ResumePoint, saved: Mapping[str, Any], ignore: Collection[str]) -> None:
        check_networks(point, {name: network.net for name, network in self._networks.items()}, ignore)
        required = {name: tracked.entry(name) for name, tracked in self._objects.items() if tracked.required}
        problems = [
            Problem(
                file=str(point.path),
                message=f"{name} does not fit: {obstacle}; accepted: the one that was saved, or one of another type, "
                "which starts fresh (path.pretrain_network_g starts a new run from a checkpoint's weights)",
            )
            for name, entry in required.items()
            if name in saved and not ignored(name, ignore) and entry["type"] == saved[name]["type"]
            if (obstacle := object_obstacle(entry, saved[name]))
        ]
        if problems:
            raise ConfigError(problems)

    def load(self, point: ResumePoint, *, ignore: Collection[str] = ()) -> list[str]:
        """Put everything that is tracked into the checkpoint's state; returns what is to be told, line by line.

        What the checkpoint lacks starts fresh (an average as a copy of its network). Random generators come `last`.

        Args:
            point: a checkpoint that was found.
            ignore: networks that stay as they are, with what belongs to them.

        Raises:
            ConfigError: a network or a required object does not fit; nothing has been changed then.
        """
        state = read_state(point.path)
        self._check(point, state["objects"], ignore)
        lines = [*point.passed_over, *environment_notices(state["environment"], self._device())]
        lines += self._load_networks(point, ignore)
        for name, tracked in sorted(self._objects.items(), key=lambda item: item[1].last):
            if name in state["objects"] and not ignored(name, ignore):
                lines += self._load_object(point, name, tracked, state["objects"][name])
        lines += self._absences(point, state, ignore)
        lines += self._newer(point)
        if point.crash:
            lines.append(f"{point.path.name} was saved after an error, perhaps in the middle of an iteration")
        self._iteration = point.iteration
        if point.path.parent.resolve() == self._folders.training_states.resolve() and not point.crash:
            self._adopt(point.iteration, state)
        return lines

    def _load_networks(self, point: ResumePoint, ignore: Collection[str]) -> list[str]:
        lines: list[str] = []
        for name, network in self._networks.items():
            source = name.removesuffix(AVERAGE)
            if ignored(name, ignore):
                lines.append(f"{name}: not loaded, it is in path.ignore_resume_networks")
            elif name in point.weights:
                network.net.load_state_dict(_tensors(point.weights[name]))
            elif source != name and source in point.weights:
                network.net.load_state_dict(self._networks[source].net.state_dict())
                lines.append(f"{name}: not in the checkpoint, it starts as a copy of {source}")
        return lines

    def _load_object(self, point: ResumePoint, name: str, tracked: _Object, entry: Mapping[str, Any]) -> list[str]:
        obstacle = object_obstacle(tracked.entry(name), entry)
        if obstacle:  # of something required only the type can differ, `_check` has refused the rest
            return [f"{name} starts fresh: {obstacle}"]
        fresh = None if tracked.required else copy.deepcopy(tracked.stateful.state_dict())
        try:
            tracked.stateful.load_state_dict(entry["state"])
        except _LOAD_FAILURES as error:
            reason = f"{type(error).__name__}: {error}"
            if fresh is None:
                raise ConfigError(Problem(file=str(point.path), message=f"{name} does not load: {reason}")) from error
            tracked.stateful.load_state_dict(fresh)
            return [f"{name} starts fresh, its saved state does not load: {reason}"]
        return []

    def _absences(self, point: ResumePoint, state: Mapping[str, Any], ignore: Collection[str]) -> list[str]:
        """What only one of checkpoint and run has, in a line each."""
        tracked, saved = {*self._networks, *self._objects}, {*point.weights, *state["objects"]}
        copied = {name for name in self._networks if name.removesuffix(AVERAGE) in point.weights}
        missing = [name for name in tracked - saved - copied if not ignored(name, ignore)]
        lines = [f"not in the checkpoint, so they start fresh: {listed(missing)}"] if missing else []
        unexpected = saved - tracked
        return [*lines, f"in the checkpoint, but not in this run: {listed(unexpected)}"] if unexpected else lines

    def _newer(self, point: ResumePoint) -> list[str]:
        """A warning when the run goes back behind checkpoints that a later `auto_resume` would take."""
        states = list_states(self._folders.training_states)
        newer = sorted(iteration for iteration, crash, _ in states if not crash and iteration > point.iteration)
        if not newer or point.passed_over:
            return []
        numbers = ", ".join(map(str, newer))
        return [f"newer checkpoints are there ({numbers}); auto_resume takes them unless they are replaced or removed"]

    def _adopt(self, iteration: int, state: Mapping[str, Any]) -> None:
        """Take over which checkpoints are this run's, so that it may remove them when they are too old."""
        files = [{"folder": entry["folder"], "name": entry["name"]} for entry in state["files"]]
        self._ledger = {**state["saved"], iteration: files}

    def _device(self) -> str:
        for network in self._networks.values():
            for parameter in network.net.parameters():
                return parameter.device.type
        return "cpu"


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    return load_file(path)
