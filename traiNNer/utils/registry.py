"""Registries: an option file's `type: NAME` becomes a component.

A component lives in one file of its kind's package and registers itself there:

    @LOSSES.register("l1loss")
    class L1Loss(nn.Module):
        def __init__(self, *, reduction: Annotated[Literal["mean", "sum"], Field(description="...")] = "mean"): ...

Modules are found by file name and imported only when a name is asked for, so that start-up does not pay for what the
option file does not use.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from traiNNer.utils.errors import ConfigError, Problem, nearest
from traiNNer.utils.schema import validate

Factory = TypeVar("Factory", bound=Callable[..., Any])


class Registry:
    """The components of one kind, by name without regard to case and underscores.

    Args:
        kind: what messages call a component of this kind, such as `loss`.
        package: the package that holds one module per component.
        suffix: ending of the modules' names, such as `_loss`.
        ignored: a name's ending that may be left out (`perceptual` for `perceptualloss`).
        check: `package:function` that is called with every factory before it is registered and may refuse it.
    """

    def __init__(self, kind: str, package: str, suffix: str, ignored: str = "", check: str | None = None) -> None:
        self.kind = kind
        self._check = check
        self._package, self._suffix, self._ignored = package, suffix, ignored
        self._factories: dict[str, Callable[..., Any]] = {}
        self._spelled: dict[str, str] = {}
        self._complete = False

    def normalize(self, name: str) -> str:
        """The form in which names are compared."""
        plain = name.lower().replace("_", "")
        return plain.removesuffix(self._ignored) or plain

    def register(self, *names: str) -> Callable[[Factory], Factory]:
        """Decorator: offer a factory with a keyword-only, annotated signature under `names`.

        Raises:
            ValueError: one of the names is taken; nothing is registered then.
        """

        def decorate(factory: Factory) -> Factory:
            taken = [name for name in names if self.normalize(name) in self._factories]
            if taken:
                raise ValueError(f"{self.kind} {', '.join(taken)} is registered already")
            if self._check is not None:
                module, function = self._check.split(":")
                getattr(importlib.import_module(module), function)(factory)
            for name in names:
                self._factories[self.normalize(name)] = factory
                self._spelled[self.normalize(name)] = name
            return factory

        return decorate

    def names(self) -> list[str]:
        """Every registered name, in alphabetical order; imports all modules of this kind."""
        self._import_all()
        return sorted(self._spelled.values())

    def get(self, name: str) -> Callable[..., Any]:
        """The factory registered under `name`.

        Raises:
            ConfigError: there is none; the message lists what there is, with the nearest name.
        """
        key = self.normalize(name)
        if key not in self._factories:
            self._import_named(key)
        if key not in self._factories:
            self._import_all()
        if key not in self._factories:
            accepted = self.names()
            message = f"unknown {self.kind} {name!r}; accepted: {', '.join(accepted)}{nearest(name, accepted)}"
            raise ConfigError(Problem(key="type", message=message))
        return self._factories[key]

    def canonical(self, name: str) -> str:
        """The spelling under which the component was registered."""
        self.get(name)
        return self._spelled[self.normalize(name)]

    def validate(self, options: Mapping[str, Any], *, also_accepted: Sequence[str] = ()) -> dict[str, Any]:
        """The complete parameters of `{"type": NAME, **parameters}`, without `type`, checked and with defaults.

        `also_accepted` are keys that were taken out of the options beforehand; messages offer them too.

        Raises:
            ConfigError: unknown type or parameters; keys are relative to the options.
        """
        factory = self.get(_type_of(options, self.kind))
        parameters = {name: value for name, value in options.items() if name != "type"}
        return validate(factory, parameters, also_accepted=also_accepted)

    def build(self, options: Mapping[str, Any], *runtime: Any, also_accepted: Sequence[str] = ()) -> Any:
        """Check `{"type": NAME, **parameters}` and call the factory with them.

        `runtime` holds what no option file can, such as the parameters to optimize: it fills the factory's
        positional-only parameters.
        """
        parameters = self.validate(options, also_accepted=also_accepted)
        return self.get(str(options["type"]))(*runtime, **parameters)

    def _modules(self) -> dict[str, str]:
        spec = importlib.util.find_spec(self._package)
        folders = list(spec.submodule_search_locations or []) if spec else []
        files = sorted(path for folder in folders for path in Path(folder).glob(f"*{self._suffix}.py"))
        return {self.normalize(path.stem.removesuffix(self._suffix)): path.stem for path in files}

    def _import_named(self, key: str) -> None:
        stem = self._modules().get(key)
        if stem is not None:
            importlib.import_module(f"{self._package}.{stem}")

    def _import_all(self) -> None:
        if not self._complete:
            for stem in self._modules().values():
                importlib.import_module(f"{self._package}.{stem}")
            self._complete = True


def _type_of(options: Mapping[str, Any], kind: str) -> str:
    name = options.get("type")
    if not isinstance(name, str):
        raise ConfigError(Problem(key="type", message=f"required key is missing; accepted: the name of the {kind}"))
    return name


NETWORKS = Registry("network", "traiNNer.archs", "_arch")
LOSSES = Registry("loss", "traiNNer.losses", "_loss", ignored="loss", check="traiNNer.losses:check_forward")
METRICS = Registry("metric", "traiNNer.metrics", "_metric")
DATASETS = Registry("data set", "traiNNer.data", "_dataset")
OPTIMIZERS = Registry("optimizer", "traiNNer.optimizers", "_optimizer")
SCHEDULERS = Registry("scheduler", "traiNNer.schedulers", "_scheduler")
AUTOMATIONS = Registry("automation", "traiNNer.training_automations", "_automation")


def loss_labels(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The label of each entry of `train.losses`: `name`, otherwise the type, then type_2, ..."""
    taken = {str(entry["name"]) for entry in entries if entry.get("name")}
    result: list[str] = []
    for entry in entries:
        label = base = str(entry.get("name") or LOSSES.canonical(str(entry["type"])))
        number = 1
        while not entry.get("name") and label in taken:
            number += 1
            label = f"{base}_{number}"
        taken.add(label)
        result.append(label)
    return result
