"""Pretrained torchvision networks: downloaded once into torch's hub cache, or taken from a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.weights import read_weights


def build_pretrained(build: Callable[[], nn.Module], file_name: str, weights_path: str | None) -> nn.Module:
    """Call `build`, which fetches torchvision's `file_name`, and return its network frozen and in evaluation mode.

    Nothing is drawn from the global random generators. With `weights_path`, that file stands in for the download.

    Raises:
        ConfigError: the file is missing or holds something else, or the download failed.
    """
    random: Any = torch.random  # its types are incomplete
    with random.fork_rng(devices=[]):
        network = _from_file(build, file_name, weights_path) if weights_path else _downloaded(build, file_name)
    return network.eval().requires_grad_(False)


def torchvision_features(
    name: str, depth: int, *, pretrained: bool = True, weights_path: str | None = None
) -> nn.Sequential:
    """The first `depth` modules of a torchvision network's `features`, with its ImageNet weights, constant.

    What follows them is neither built nor kept, and no module works in place, so that every module's result can be
    used. Nothing is drawn from the global random generators.

    Args:
        name: torchvision's name, such as `vgg19`.
        depth: number of modules.
        pretrained: false draws weights from a generator with a fixed seed, the same in every run.
        weights_path: file that stands in for the download: all of the network's weights, or those of `features.`.

    Raises:
        ConfigError: the file is missing or holds something else, or the download failed.
    """
    import torchvision  # pyright: ignore[reportMissingTypeStubs]

    models: Any = torchvision.models
    with torch.device("meta"):  # shapes only: the rest of a VGG would take 500 MB
        features: nn.Sequential = models.get_model(name, weights=None).features[:depth]
    weights: Any = models.get_model_weights(name).DEFAULT
    file_name = Path(weights.url).name
    shapes = features.state_dict()
    if not pretrained:
        state = _random(shapes)
    elif weights_path:
        state = _matching(shapes, _tensors(weights_path, file_name), f"{weights_path} does not hold {file_name}")
    else:
        found = _downloaded(lambda: weights.get_state_dict(progress=False, check_hash=True), file_name)
        state = _matching(shapes, found, f"the download is not {file_name}")
    features.load_state_dict(state, assign=True)
    for module in features.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010  # an attribute of some modules only
    return constant(features).eval()


def constant(network: nn.Sequential) -> nn.Sequential:
    """Make parameters and buffers of a network constants that follow it from device to device.

    They get no gradient, no optimizer finds them, and they are in no `state_dict`: there is nothing to save.
    """
    for module in network.modules():
        values = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        for name, value in values.items():
            delattr(module, name)
            module.register_buffer(name, value.detach(), persistent=False)
    return network


def packaged_weights(package: str, path: str) -> dict[str, Tensor]:
    """Tensors of a weights file that an installed package brings along; the package is not imported.

    Raises:
        ConfigError: the package or the file is not there.
    """
    import importlib.util

    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise ConfigError(f"found no package {package}; accepted: an installation with it (requirements.txt)")
    return read_weights(Path(folders[0], path)).tensors


def _matching(shapes: Mapping[str, Tensor], tensors: Mapping[str, Tensor], refusal: str) -> dict[str, Tensor]:
    """The tensors of `features.` under their names in it, float32.

    Raises:
        ConfigError: one is missing or has another shape; `refusal` says whose it is.
    """
    state = {name: tensors.get(f"features.{name}") for name in shapes}
    fitting = {name: value for name, value in state.items() if value is not None and value.shape == shapes[name].shape}
    wrong = next((name for name in shapes if name not in fitting), None)
    if wrong is not None:
        value = state[wrong]
        found = (
            "is missing" if value is None else f"has the shape {tuple(value.shape)}, not {tuple(shapes[wrong].shape)}"
        )
        raise ConfigError(Problem(key="weights_path", message=f"{refusal}: features.{wrong} {found}"))
    return {name: value.float() for name, value in fitting.items()}


def _random(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that keep the size of what passes through them; what has one dimension scales by 1 or adds nothing."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, value in shapes.items():
        if value.ndim > 1:
            gain = (2 / max(1, value[0].numel())) ** 0.5
            state[name] = torch.randn(value.shape, generator=generator, dtype=torch.float32) * gain
        else:
            state[name] = torch.full(value.shape, float(name.endswith("weight")), dtype=torch.float32)
    return state


def _downloaded(fetch: Callable[[], Any], file_name: str) -> Any:
    try:
        return fetch()
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: a download whose hash is wrong
        place = Path(torch.hub.get_dir(), "checkpoints", file_name)
        found = f"the pretrained weights {file_name} could not be downloaded ({error})"
        accepted = f"accepted: weights_path: FILE, or the file at {place}"
        raise ConfigError(Problem(key="weights_path", message=f"{found}; {accepted}")) from None


def _tensors(weights_path: str, file_name: str) -> dict[str, Tensor]:
    path = Path(weights_path)
    if not path.is_file():
        message = f"found {path}, which is no file; accepted: {file_name} as torchvision publishes it"
        raise ConfigError(Problem(key="weights_path", message=message))
    return read_weights(path).tensors


def _from_file(build: Callable[[], nn.Module], file_name: str, weights_path: str) -> nn.Module:
    """Build with a hub cache that holds only this file, read and written again so that no code in it runs."""
    tensors = _tensors(weights_path, file_name)
    hub: Any = torch.hub  # its types are incomplete
    usual = hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "checkpoints").mkdir()
        torch.save(tensors, Path(folder, "checkpoints", file_name))
        hub.set_dir(folder)
        try:
            return build()
        except RuntimeError as error:
            message = f"{weights_path} does not hold {file_name}: {str(error).splitlines()[0]}"
            raise ConfigError(Problem(key="weights_path", message=message)) from None
        finally:
            hub.set_dir(usual)
