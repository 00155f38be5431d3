"""Pretrained torchvision backbones for metrics: downloaded once into torch's hub cache, or taken from a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn

from traiNNer.utils.errors import ConfigError, Problem


def build_pretrained(build: Callable[[], nn.Module], file_name: str, weights_path: str | None) -> nn.Module:
    """Call `build`, which fetches torchvision's `file_name`, and return its network frozen and in evaluation mode.

    Nothing is drawn from the global random generators. With `weights_path`, that file stands in for the download.

    Raises:
        ConfigError: the file is missing or holds something else, or the download failed.
    """
    with torch.random.fork_rng(devices=[]):
        network = _from_file(build, file_name, Path(weights_path)) if weights_path else _from_hub(build, file_name)
    return network.eval().requires_grad_(False)


def _from_hub(build: Callable[[], nn.Module], file_name: str) -> nn.Module:
    try:
        return build()
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: a download whose hash is wrong
        place = Path(torch.hub.get_dir(), "checkpoints", file_name)
        found = f"the pretrained weights {file_name} could not be downloaded ({error})"
        accepted = f"accepted: weights_path: FILE, or the file at {place}"
        raise ConfigError(Problem(key="weights_path", message=f"{found}; {accepted}")) from None


def _from_file(build: Callable[[], nn.Module], file_name: str, path: Path) -> nn.Module:
    """Build with a hub cache of its own that holds only `path`, read and written again so that no code in it runs."""
    from traiNNer.utils.weights import read_weights

    if not path.is_file():
        message = f"found {path}, which is no file; accepted: {file_name} as torchvision publishes it"
        raise ConfigError(Problem(key="weights_path", message=message))
    tensors = read_weights(path).tensors
    usual = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "checkpoints").mkdir()
        torch.save(tensors, Path(folder, "checkpoints", file_name))
        torch.hub.set_dir(folder)
        try:
            return build()
        except RuntimeError as error:
            message = f"{path} does not hold {file_name}: {str(error).splitlines()[0]}"
            raise ConfigError(Problem(key="weights_path", message=message)) from None
        finally:
            torch.hub.set_dir(usual)
