"""Fields of option sections: their text and unit, and numbers of iterations as users write them."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field


def option(default: Any = ..., *, unit: str, text: str, **limits: Any) -> Any:
    """A field of a section: its default, its unit, what it does, and its limits."""
    return Field(default, description=text, json_schema_extra={"unit": unit}, **limits)


def iterations(value: Any) -> Any:
    """A number of iterations as users write it: 20000, 2e4 or "20k".

    Raises:
        ValueError: anything else.
    """
    number = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?[kK]", value):
        number = round(float(value[:-1]) * 1000, 6)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError("a whole number of iterations, such as 20000 or 20k")
    return number


_Written: TypeAlias = int | Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?[kK]$")]
Iterations: TypeAlias = Annotated[int, BeforeValidator(iterations, json_schema_input_type=_Written)]
