"""A registered component's keyword-only signature is its schema.

`validate(factory, parameters)` checks option values against the annotations (`Annotated[type, Field(...)]`) and returns
the complete parameters, defaults filled in. Scalars are strict (`true` is not 1.0, `"1"` is not 1); a list is accepted
where a tuple is annotated, because YAML has only lists.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, cast, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Strict, create_model

from traiNNer.utils.errors import ConfigError, Problem, nearest


def accept_lists_for_tuples(annotation: Any) -> Any:
    """The annotation with tuples made non-strict, so that they take YAML's lists; their elements stay strict."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[(accept_lists_for_tuples(arguments[0]), *arguments[1:])]  # type: ignore[return-value]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(accept_lists_for_tuples(argument) for argument in arguments)]  # noqa: UP007
    if origin in (tuple, list, dict):
        inner = types.GenericAlias(origin, tuple(accept_lists_for_tuples(argument) for argument in arguments))
        return Annotated[inner, Strict(False)] if origin is tuple else inner
    return annotation


@cache
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
    return create_model(getattr(factory, "__name__", "Component"), __config__=_STRICT, **fields)


_STRICT = ConfigDict(
    strict=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False
)


def _annotated(factory: Callable[..., Any]) -> Any:
    return factory.__init__ if inspect.isclass(factory) else factory


def validate(
    factory: Callable[..., Any], parameters: Mapping[str, Any], *, also_accepted: Sequence[str] = ()
) -> dict[str, Any]:
    """Check `parameters` against the factory's signature and fill in its defaults.

    Args:
        factory: a registered component.
        parameters: option values by name.
        also_accepted: names that are taken out of the section beforehand; messages offer them too.

    Raises:
        ConfigError: every mistake found, with keys relative to the component.
    """
    model = parameters_model(factory)
    names = accepted_names(factory)
    try:
        checked = model.model_validate(dict(parameters))
    except pydantic.ValidationError as error:
        raise ConfigError(problems_of(error, [*also_accepted, *names], parameters)) from None
    return {name: getattr(checked, f"p_{name}") for name in names}


def accepted_names(factory: Callable[..., Any]) -> list[str]:
    """The parameter names of a factory, in order."""
    parameters = inspect.signature(factory).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


Accepted = Sequence[str] | Callable[[tuple[int | str, ...]], Sequence[str]]
"""The accepted keys, or a function from a location to those of the section it lies in."""


def problems_of(error: pydantic.ValidationError, accepted: Accepted, data: Mapping[str, Any]) -> list[Problem]:
    """pydantic's errors in this project's form: one problem a mistake, with `[2]` for positions in lists.

    Args:
        error: what validating `data` raised.
        accepted: accepted keys, for messages about unknown ones.
        data: the validated input; it tells keys from the marks that pydantic adds to a location.
    """
    problems: list[Problem] = []
    values: dict[str, tuple[Any, list[str]]] = {}
    for item in error.errors(include_url=False):
        location = item["loc"]
        own = item["type"] == "value_error" and str(location[-1]).isidentifier()
        key = key_path(location, data, absent=item["type"] == "missing" or own)
        if item["type"] == NESTED_PROBLEMS:
            problems += [problem.under(key) for problem in item.get("ctx", {})["problems"]]
        elif item["type"] == "extra_forbidden":
            names = accepted(location) if callable(accepted) else accepted
            problems.append(unknown_key(key, str(location[-1]), names))
        elif item["type"] == "missing":
            problems.append(Problem(key=key, message=MISSING))
        else:
            values.setdefault(key, (item["input"], []))[1].append(_expectation(item))
    for key, (found, expected) in values.items():
        if not any(other.startswith((f"{key}.", f"{key}[")) for other in values):  # else another branch of a union
            wanted = " or ".join(dict.fromkeys(expected))
            problems.append(Problem(key=key, message=f"found {shown(found)}; accepted: {wanted}"))
    return without_consequences(problems)


NESTED_PROBLEMS = "problems"
"""Type of the pydantic error by which a validator hands on problems of its own (`ctx["problems"]`)."""

MISSING = "required key is missing"


def unknown_key(key: str, name: str, accepted: Sequence[str]) -> Problem:
    """The problem of a key that nobody knows; `name` is its last part."""
    message = f"unknown key; accepted: {', '.join(sorted(set(accepted)))}{nearest(name, accepted)}"
    return Problem(key=key, message=message)


def without_consequences(problems: Iterable[Problem]) -> list[Problem]:
    """The problems without repetitions, and without required keys that are missing only because they are misspelled."""
    distinct = list(dict.fromkeys(problems))
    misspelled = [(_parent(p.key), p.message) for p in distinct if p.message.startswith("unknown key")]

    def is_consequence(problem: Problem) -> bool:
        hint = f"(did you mean {problem.key.rpartition('.')[2]}?)"
        return any(parent == _parent(problem.key) and message.endswith(hint) for parent, message in misspelled)

    return [p for p in distinct if not (p.message.startswith(MISSING) and is_consequence(p))]


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def key_path(location: Sequence[int | str], data: Any, *, absent: bool = False) -> str:
    """`("losses", 2, "type")` as `losses[2].type`.

    pydantic adds marks to a location (branches of unions, `function-after[...]`, `[key]`): a part is a key only if the
    data at that place has it, or if it is the last one and said to be absent.
    """
    path = ""
    for position, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
            values = cast("Sequence[Any]", data) if isinstance(data, list | tuple) else ()
            data = values[part] if part < len(values) else None
        elif isinstance(data, Mapping):
            section = cast("Mapping[Any, Any]", data)
            if part in section or (absent and position == len(location) - 1):
                path += f".{part}" if path else part
                data = section.get(part)
    return path


def shown(value: Any) -> str:
    """A value as an option file writes it, shortened."""
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        values = cast("Sequence[Any]", value)
        text = f"[{', '.join(map(shown, values))}]"
        return text if len(text) <= 60 else f"a list of {len(values)}"
    if value is None or isinstance(value, bool):
        return {None: "nothing (null)", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...'"


_EXPECTATIONS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section (`key: value` lines)",
    "mapping_type": "a section (`key: value` lines)",
    "model_type": "a section (`key: value` lines)",
    "model_attributes_type": "a section (`key: value` lines)",
    "none_required": "null",
    "greater_than_equal": "at least {ge}",
    "greater_than": "greater than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "string_too_short": "text of at least {min_length} character(s)",
    "too_short": "at least {min_length} value(s)",
    "too_long": "at most {max_length} value(s)",
    "string_pattern_mismatch": "text of the form {pattern}",
}
"""What is accepted, by pydantic's error type; fields in braces come from the error's context."""


def _expectation(item: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind not in _EXPECTATIONS:
        return str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    text = _EXPECTATIONS[kind].format(**context)
    if kind == "literal_error" and isinstance(item["input"], str):
        text += nearest(item["input"], re.findall(r"'([^']*)'", text))
    return text
