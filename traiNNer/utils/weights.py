"""Weights files: reading them so that no code in them runs, and fitting them into a network.

`.safetensors` and `.pth` files of this program, of traiNNer-redux, BasicSR and their relatives are read, with or
without `params` and `params_ema` around the weights. What does not fit is told before anything is changed.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

import traiNNer
from traiNNer.types import NetworkInfo, Normalization
from traiNNer.utils.errors import ConfigError, nearest

PARAM_KEYS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net")
"""Keys under which a `.pth` file may hold its weights, the preferred one first."""

_WRAPPERS = ("module.", "_orig_mod.", "netG.")
"""Prefixes that DataParallel, torch.compile and some trainers put before every name."""

_SHOWN = 4
"""Names that a message lists before it counts the rest."""


@dataclass(frozen=True)
class WeightsFile:
    """Content of a weights file."""

    path: Path
    tensors: dict[str, Tensor]
    """On the CPU, in the file's precision, by the network's own names."""
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    """What `network_metadata` wrote; empty for `.pth` and most foreign files."""

    @property
    def normalization(self) -> Normalization | None:
        """Of the fields that the network was trained on, as the metadata say; None for images."""
        try:
            found = json.loads(self.metadata["normalization"])
            return Normalization(mean=tuple(map(float, found["mean"])), std=tuple(map(float, found["std"])))
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def trained_on(self) -> Literal["fields", "images", ""]:
        """What the metadata say; an empty string for files without."""
        if self.normalization is not None:
            return "fields"
        return "images" if "type" in self.metadata else ""

    @property
    def origin(self) -> str:
        """`type xSCALE` as the metadata say, or an empty string."""
        return f"{self.metadata['type']} x{self.metadata.get('scale', '?')}" if "type" in self.metadata else ""


@dataclass(frozen=True)
class LoadReport:
    """How a file's tensors compare with a network's."""

    where: str
    """Whose weights they are, such as `pretrain_network_g`."""
    path: Path
    loaded: int
    """Number of tensors that fit."""
    missing: tuple[str, ...]
    """In the network only; they keep their values."""
    unexpected: tuple[str, ...]
    """In the file only."""
    mismatched: tuple[str, ...]
    """`NAME (SHAPE in the file, SHAPE in the network)`."""

    @property
    def fits(self) -> bool:
        """Whether names and shapes are the same on both sides."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def differences(self) -> list[str]:
        """One phrase per kind of difference."""
        kinds = [
            ("of another shape", self.mismatched),
            ("missing in the file", self.missing),
            ("unknown to the network", self.unexpected),
        ]
        return [f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds if names]

    @property
    def lines(self) -> list[str]:
        """What a user should know about a load that was not complete."""
        if self.fits:
            return []
        total = self.loaded + len(self.missing) + len(self.mismatched)
        head = f"{self.where}: {self.loaded} of the network's {total} tensors were loaded from {self.path}"
        return [head if self.loaded else f"{head}: nothing in it fits", *(f"  {text}" for text in self.differences)]


def read_weights(path: Path, *, param_key: str | None = None) -> WeightsFile:
    """Read a weights file; no code in it can run.

    Args:
        path: a `.safetensors` file, or a `.pth`, `.pt` or `.ckpt` file that `torch.save` wrote.
        param_key: which of several sets of weights to take (`params`, `params_ema`, ...); by default the first there
            is of `PARAM_KEYS`, else the file itself.

    Raises:
        ConfigError: missing, damaged or hostile file, one without weights, or without `param_key`.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        hint = "; for a training state use resume_state" if path.suffix == ".state" else ""
        raise ConfigError(f"found {path}; accepted: a file ending in {', '.join(_READERS)}{hint}")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise ConfigError(f"found {path}, which is {kind}; accepted: a weights file")
    content, metadata = reader(path)
    named = _weights_in(content, param_key, path)
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        held = _listed(named) or "nothing"
        raise ConfigError(f"found {path}, which holds no weights but {held}; accepted: a weights file")
    return WeightsFile(path, _without_wrappers(tensors), metadata)


def check_fits(net: nn.Module, weights: WeightsFile, *, strict: bool, where: str) -> LoadReport:
    """Compare names and shapes; changes nothing.

    What a network computes by itself and keeps as a buffer (its `derived_buffers`, endings of names, such as attention
    masks for one image size) is left out on both sides.

    Args:
        net: network to fit the weights into.
        weights: content of the file.
        strict: whether any difference is an error.
        where: whose weights they are, for the report.

    Raises:
        ConfigError: `strict`, and the file does not fit; the message says what the file looks like.
    """
    expected, found = _compared(net, weights)
    common = [name for name in expected if name in found]
    mismatched = [name for name in common if expected[name].shape != found[name].shape]
    report = LoadReport(
        where=where,
        path=weights.path,
        loaded=len(common) - len(mismatched),
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in found if name not in expected),
        mismatched=tuple(_shapes(name, found[name], expected[name]) for name in mismatched),
    )
    if strict and not report.fits:
        raise ConfigError(_explanation(net, weights, report))
    return report


def load_into(net: nn.Module, weights: WeightsFile, *, strict: bool, where: str) -> LoadReport:
    """Load what fits; see `check_fits` for arguments, report and errors.

    Raises:
        ConfigError: as `check_fits`; the network is unchanged then.
    """
    report = check_fits(net, weights, strict=strict, where=where)
    expected, found = _compared(net, weights)
    fitting = {name: value for name, value in found.items() if name in expected and value.shape == expected[name].shape}
    net.load_state_dict(fitting, strict=False)
    return report


def network_metadata(info: NetworkInfo, iteration: int) -> dict[str, str]:
    """What a weights file says about its network, enough to build it again (`archs.from_weights`)."""
    fields = {} if info.normalization is None else {"normalization": json.dumps(asdict(info.normalization))}
    return {
        "framework": "traiNNer",
        "framework_version": traiNNer.__version__,
        "type": info.type,
        "scale": str(info.scale),
        "parameters": json.dumps(info.parameters),
        "iteration": str(iteration),
        **fields,
    }


def _read_safetensors(path: Path) -> tuple[Mapping[Any, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(path, framework="pt", device="cpu")  # without types of its own
        with opened as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _read_pth(path: Path) -> tuple[Mapping[Any, Any], dict[str, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for programmers about files that are refused anyway
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from None
    except _DAMAGE as error:
        if "TorchScript" in str(error):
            message = f"found {path}, a TorchScript program, which is not run; accepted: a file of its weights"
            raise ConfigError(message) from None
        raise _damaged(path, error) from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"found {path}, which holds a {type(content).__name__}; accepted: a file of named weights")
    return cast("Mapping[Any, Any]", content), {}


_Reader = Callable[[Path], tuple[Mapping[Any, Any], dict[str, str]]]
_READERS: dict[str, _Reader] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_pth,
    ".pt": _read_pth,
    ".ckpt": _read_pth,
}

_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError),
    *(OSError, RuntimeError, TypeError, ValueError, struct.error),
)
"""What torch.load raises for bytes that are not as torch.save writes them."""


def _damaged(path: Path, error: Exception) -> ConfigError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ConfigError(f"found {path}, which is damaged or cut short ({reason}); accepted: a whole weights file")


def _refused(path: Path, error: Exception) -> ConfigError:
    """The explanation for a pickle that asks for more than tensors in plain containers."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
        text = f"found {path}, which is damaged or was not written by torch.save; it was not read further"
        return ConfigError(f"{text}, because such a file could run code; accepted: a whole weights file")
    text = f"found {path}, which asks for {named[1]}: it was refused, because a file that holds more than tensors can"
    return ConfigError(f"{text} run code when it is read; accepted: a file of tensors only, such as .safetensors")


def _weights_in(content: Mapping[Any, Any], param_key: str | None, path: Path) -> dict[str, Any]:
    sets = [str(key) for key, value in content.items() if isinstance(value, Mapping)]
    if param_key is not None and param_key not in sets:
        accepted = ", ".join(sets) or "null, the file holds bare weights"
        text = f"found no {param_key!r} in {path}; accepted as param_key: {accepted}"
        raise ConfigError(text + nearest(param_key, sets))
    key = param_key or next((known for known in PARAM_KEYS if known in sets), None)
    chosen = content if key is None else cast("Mapping[Any, Any]", content[key])
    return {str(name): value for name, value in chosen.items()}


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as the network knows them; AveragedModel's counter is dropped with its prefix."""
    names = [name for name in tensors if name != "n_averaged"]
    for prefix in _WRAPPERS:
        if names and all(name.startswith(prefix) for name in names):
            return _without_wrappers({name.removeprefix(prefix): tensors[name] for name in names})
    return tensors


def _compared(net: nn.Module, weights: WeightsFile) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's tensors and the file's, under the network's names."""
    expected, found = _learned(net, net.state_dict()), _learned(net, weights.tensors)
    return expected, {_spectral_name(name, expected): tensor for name, tensor in found.items()}


_SPECTRAL = {"weight_orig": "weight.original", "weight_u": "weight.0._u", "weight_v": "weight.0._v"}
"""What torch's older spectral norm, used by published discriminators, calls the parametrization's tensors."""


def _spectral_name(name: str, expected: Mapping[str, Tensor]) -> str:
    layer, _, tensor = name.rpartition(".")
    renamed = f"{layer}.parametrizations.{_SPECTRAL.get(tensor, tensor)}".removeprefix(".")
    return renamed if name not in expected and renamed in expected else name


def _learned(net: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    derived = tuple(cast("Iterable[str]", getattr(net, "derived_buffers", ())))
    return {name: tensor for name, tensor in tensors.items() if not derived or not name.endswith(derived)}


def _explanation(net: nn.Module, weights: WeightsFile, report: LoadReport) -> str:
    info = getattr(net, "network_info", None)
    network = f"{info.type} x{info.scale}" if isinstance(info, NetworkInfo) else type(net).__name__
    looks = f"; the file looks like {_looks_like(weights, report)}"
    text = f"{weights.path} does not fit {network}: {'; '.join(report.differences)}{looks}"
    return f"{text}; accepted: weights of {network}, or a load that is not strict and takes what fits"


def _looks_like(weights: WeightsFile, report: LoadReport) -> str:
    if weights.origin:
        return weights.origin
    found = _detected(weights.tensors)
    if found:
        return found
    mostly = report.loaded > len(report.missing) + len(report.unexpected) + len(report.mismatched)
    return "the same network with another scale or other parameters" if mostly else "another network"


def _detected(tensors: dict[str, Tensor]) -> str:
    """What spandrel takes the weights for; a guess for a message, so whatever it trips over means: unknown."""
    import spandrel  # pyright: ignore[reportMissingTypeStubs]  # 1.8 s, spent only on an error

    try:
        model = spandrel.ModelLoader().load_from_state_dict(tensors)
    except (spandrel.UnsupportedModelError, *_DAMAGE):
        return ""
    return f"{model.architecture.name} x{model.scale}"


def _shapes(name: str, found: Tensor, expected: Tensor) -> str:
    return f"{name} ({_size(found)} in the file, {_size(expected)} in the network)"


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
