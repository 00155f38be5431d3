"""A registered component's keyword-only signature is its schema.

`validate(factory, parameters)` checks option values against the annotations (`Annotated[type, Field(...)]`) and returns
the complete parameters, defaults filled in. Scalars are strict (`true` is not 1.0, `"1"` is not 1); a list is accepted
where a tuple is annotated, because YAML has only lists.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Strict, create_model

from traiNNer.utils.errors import ConfigError, Problem, nearest


def accept_lists_for_tuples(annotation: Any) -> Any:
    """The annotation with tuples made non-strict, so that they take YAML's lists; their elements stay strict."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[(accept_lists_for_tuples(arguments[0]), *arguments[1:])]  # type: ignore[return-value]
    if origin is tuple:
        return Annotated[annotation, Strict(False)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(accept_lists_for_tuples(argument) for argument in arguments)]  # noqa: UP007
    return annotation


@lru_cache(maxsize=None)
def parameters_model(factory: Callable[..., Any]) -> type[BaseModel]:
    """The pydantic model of a factory's keyword parameters.

    Raises:
        TypeError: a parameter is neither positional-only (a runtime object, not an option) nor keyword-only and
            annotated: a programming error.
    """
    signature = inspect.signature(factory)
    explicit = getattr(factory, "__signature__", None)
    hints = {} if explicit is not None else typing.get_type_hints(_annotated(factory), include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        annotation = hints.get(name, parameter.annotation)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            continue
        if parameter.kind is not parameter.KEYWORD_ONLY or annotation is parameter.empty:
            raise TypeError(f"{factory!r}: parameter {name!r} must be keyword-only and annotated")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"p_{name}"] = (accept_lists_for_tuples(annotation), pydantic.Field(default, alias=name))
    config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False)
    return create_model(getattr(factory, "__name__", "Component"), __config__=config, **fields)


def _annotated(factory: Callable[..., Any]) -> Any:
    return factory.__init__ if inspect.isclass(factory) else factory


def validate(factory: Callable[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Check `parameters` against the factory's signature and fill in its defaults.

    Raises:
        ConfigError: every mistake found, with keys relative to the component.
    """
    model = parameters_model(factory)
    try:
        checked = model.model_validate(dict(parameters))
    except pydantic.ValidationError as error:
        raise ConfigError(problems_of(error, accepted_names(factory))) from None
    return {name: getattr(checked, f"p_{name}") for name in accepted_names(factory)}


def accepted_names(factory: Callable[..., Any]) -> list[str]:
    """The parameter names of a factory, in order."""
    parameters = inspect.signature(factory).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def problems_of(error: pydantic.ValidationError, accepted: list[str]) -> list[Problem]:
    """pydantic's errors in this project's form, with `[2]` for positions in lists."""
    problems = {}
    for item in error.errors(include_url=False):
        key = key_path(item["loc"])
        problems.setdefault(key, Problem(key=key, message=_message(item, accepted)))
    return list(problems.values())


def key_path(location: tuple[int | str, ...]) -> str:
    """`("losses", 2, "type")` as `losses[2].type`; pydantic's own marks (`function-after[...]`, type names) left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in _TYPE_MARKS:
            path += f".{part}" if path else part
    return path


_TYPE_MARKS = {"int", "float", "str", "bool", "list", "dict", "tuple", "none"}
"""What pydantic adds to a location for the branch of a union; no option carries such a name."""


def _message(item: Any, accepted: list[str]) -> str:
    kind, found = item["type"], item["input"]
    if kind == "extra_forbidden":
        name = str(item["loc"][-1])
        return f"unknown key; accepted: {', '.join(sorted(accepted))}{nearest(name, accepted)}"
    if kind == "missing":
        return "required key is missing"
    text = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"found {found!r}; accepted: {text}"
