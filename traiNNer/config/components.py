"""Sections that name a registered component: `type`, keys of the section itself, and the component's parameters.

The component's keyword-only signature is its schema; this module finds it by the registry and imports no component.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pydantic
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from traiNNer.config.vocabulary import NAMES
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import METRICS, Registry
from traiNNer.utils.schema import MISSING, NESTED_PROBLEMS, accepted_names, problems_of, shown, validate

T = TypeVar("T")


class ReadOnly(Mapping[str, T]):
    """A mapping that does not change; what it returns is a copy where that could."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, T]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> T:
        value: Any = self._values[key]
        return copy.deepcopy(value) if type(value) in (list, dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values!r})"


class ComponentOptions(ReadOnly[Any]):
    """The checked, complete options of one component, read-only.

    It is what builders take: `build_network(options.network_g)`, `OPTIMIZERS.build(options.train.optim_g, parameters)`.
    """

    __slots__ = ("_common",)

    def __init__(self, values: Mapping[str, Any], common: Sequence[str] = ()) -> None:
        super().__init__(copy.deepcopy(dict(values)))
        self._common = frozenset(common)

    @property
    def type(self) -> str:
        """Registered name, in the registry's spelling."""
        return self["type"]

    @property
    def component(self) -> dict[str, Any]:
        """`type` and the component's own parameters, without the keys of the section (a loss's `loss_weight`)."""
        return {name: self[name] for name in self if name not in self._common}


@dataclass(frozen=True)
class OfKind:
    """Annotation of a field that holds a component of a registry.

    Args:
        registry: where `type` is looked up.
        common: model of the keys of the section itself, beside the component's parameters.
        own: for messages: keys that are taken out of the section beforehand.
    """

    registry: Registry
    common: type[pydantic.BaseModel] | None = None
    own: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "object", "component": self.registry.kind}

    def check(self, value: Any) -> ComponentOptions:
        """The component's complete options.

        Raises:
            PydanticCustomError: carries every problem, with keys relative to the section.
        """
        if isinstance(value, ComponentOptions):
            return value
        if not isinstance(value, dict):
            raise _refusal([Problem(message=f"found {shown(value)}; accepted: a section with `type`")])
        section = cast("dict[str, Any]", value)
        own = parameters_of(self.registry, section)  # a component's parameter wins over a key of the same name
        names = [name for name in self.common.model_fields if name not in own] if self.common else []
        common, problems = self._check_common({name: section[name] for name in names if name in section})
        try:
            values = self._check_component({name: v for name, v in section.items() if name not in names}, names)
        except ConfigError as error:
            raise _refusal([*problems, *error.problems]) from None
        if problems:
            raise _refusal(problems)
        return ComponentOptions({"type": values.pop("type"), **common, **values}, names)

    def _check_common(self, values: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        if self.common is None:
            return {}, []
        try:
            checked = self.common.model_validate(values)
        except pydantic.ValidationError as error:
            return {}, problems_of(error, list(self.common.model_fields), values)
        fields = self.common.model_fields
        given = [name for name in fields if name in checked.model_fields_set]
        return {name: getattr(checked, name) for name in given}, []

    def _check_component(self, values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
        written = values.get("type")
        if not isinstance(written, str):
            found = MISSING if "type" not in values else f"found {shown(written)}"
            raise ConfigError(Problem(key="type", message=f"{found}; accepted: the name of the {self.registry.kind}"))
        name = spelled(self.registry, written)
        try:
            factory = self.registry.get(name)
        except ConfigError as error:
            raise ConfigError([_known_elsewhere(self.registry, name, problem) for problem in error.problems]) from None
        parameters = {key: value for key, value in values.items() if key != "type"}
        checked = validate(factory, parameters, also_accepted=["type", *names, *self.own])
        return {"type": self.registry.canonical(name), **checked}


def spelled(registry: Registry, name: str) -> str:
    """The name under which the registry has a component that traiNNer-redux calls `name`."""
    plain = name.lower().replace("_", "")
    if registry is METRICS and plain.startswith("calculate"):  # calculate_psnr_pt is psnr, computed by torch
        short = plain.removeprefix("calculate").removesuffix("pt")
        try:
            registry.get(short)
        except ConfigError:
            return name
        return short
    return name


def parameters_of(registry: Registry, options: Mapping[str, Any]) -> list[str]:
    """The parameter names of the component that `options["type"]` names; none if there is no such component."""
    name = options.get("type")
    if not isinstance(name, str):
        return []
    try:
        return accepted_names(registry.get(spelled(registry, name)))
    except ConfigError:
        return []


def _known_elsewhere(registry: Registry, name: str, problem: Problem) -> Problem:
    known = {registry.normalize(each) for each in NAMES.get(registry.kind, [])}
    if registry.normalize(name) not in known:
        return problem
    accepted = ", ".join(registry.names())
    return Problem(key=problem.key, message=f"the {registry.kind} {name!r} is not supported yet; accepted: {accepted}")


def _refusal(problems: list[Problem]) -> PydanticCustomError:
    return PydanticCustomError(NESTED_PROBLEMS, "problems in a component", {"problems": problems})
