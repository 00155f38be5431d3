"""Whether a checkpoint fits a run: compared before anything of the run is touched."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from traiNNer import __version__
from traiNNer.utils.checkpoint_files import ResumePoint, listed
from traiNNer.utils.errors import ConfigError, Problem


def check_networks(point: ResumePoint, networks: Mapping[str, nn.Module], ignore: Collection[str] = ()) -> None:
    """Compare names and shapes of the networks' tensors with a checkpoint's files; nothing is loaded.

    Args:
        point: the checkpoint.
        networks: the run's networks by their tracked names; those that the checkpoint lacks are not compared.
        ignore: networks that will not be loaded.

    Raises:
        ConfigError: a network is another one, with the keys that differ; or the checkpoint has none of them.
    """
    shared = [name for name in networks if name in point.weights and not ignored(name, ignore)]
    if not shared and not all(ignored(name, ignore) for name in networks):
        raise ConfigError(
            Problem(
                file=str(point.path),
                message=f"found a checkpoint of {listed(point.weights)}; accepted: one of {listed(networks)}",
            )
        )
    problems = [
        Problem(
            file=str(point.path),
            message=f"{name} is another network than the option file's: {differences}; accepted: the network that was "
            f"saved (to start a new run from its weights use path.pretrain_{name.replace('net_', 'network_', 1)})",
        )
        for name in shared
        if (differences := _differences(networks[name], point.weights[name]))
    ]
    if problems:
        raise ConfigError(problems)


def _differences(net: nn.Module, file: Path) -> str:
    own = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    saved = _shapes(file)
    reshaped = [f"{key} {saved[key]} instead of {own[key]}" for key in own if key in saved and saved[key] != own[key]]
    parts = {
        "the checkpoint lacks": list(own.keys() - saved.keys()),
        "the option file's network lacks": list(saved.keys() - own.keys()),
        "other shapes": reshaped,
    }
    return "; ".join(f"{title}: {listed(keys)}" for title, keys in parts.items() if keys)


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor in a safetensors file, from its header: its length in 8 bytes, then JSON."""
    with file.open("rb") as opened:
        header: dict[str, Any] = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}


def ignored(name: str, ignore: Collection[str]) -> bool:
    """Whether a tracked name is of an ignored network: itself, its average, `optimizer/<network>` and the like.

    traiNNer-redux's spelling `network_g` means `net_g`.
    """
    owner = name.rpartition("/")[2].removesuffix("_ema")
    return owner in {entry.replace("network_", "net_", 1) for entry in ignore}


def object_obstacle(tracked: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Why a saved object cannot be loaded into the tracked one; empty if it can, as far as one sees beforehand.

    Args:
        tracked: `version`, `type` and `state` of the run's object, as a checkpoint would hold them.
        entry: the same of the checkpoint.
    """
    if entry["type"] != tracked["type"]:
        return f"it was saved by {entry['type']} and is now {tracked['type']}"
    if entry["version"] != tracked["version"]:
        return f"the checkpoint's has version {entry['version']}, the run's {tracked['version']}"
    own, saved = tracked["state"].get("param_groups"), entry["state"].get("param_groups")
    if own is not None and saved is not None:
        sizes = [[len(group["params"]) for group in groups] for groups in (saved, own)]
        if sizes[0] != sizes[1]:
            return f"the checkpoint's has parameter groups of {sizes[0]}, the run's of {sizes[1]} tensors"
    return ""


def environment(device: str) -> dict[str, Any]:
    """What the exactness of a resume depends on beside the checkpoint."""
    return {
        "traiNNer": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": device,
    }


def environment_notices(saved: Mapping[str, Any], device: str) -> list[str]:
    """One line for each difference to what a checkpoint was written with."""
    return [
        f"{name}: {saved[name]} when the checkpoint was saved, {value} now; results can differ in the last bits"
        for name, value in environment(device).items()
        if name in saved and saved[name] != value
    ]
