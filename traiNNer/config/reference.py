"""The reference of all options, generated from the sections and the components' signatures: page, JSON schema, keys."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel

from traiNNer.config.automations import FALLBACKS, STOPPING, TYPES
from traiNNer.config.options import Options
from traiNNer.config.sections import AutomationEntry, AutomationsOptions, DatasetOptions, LossEntry, Section
from traiNNer.utils.registry import (
    AUTOMATIONS,
    DATASETS,
    LOSSES,
    METRICS,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULERS,
    Registry,
)
from traiNNer.utils.scheduler_params import SchedulerParams
from traiNNer.utils.schema import parameters_model

Schema = dict[str, Any]

REGISTRIES = (NETWORKS, DATASETS, LOSSES, METRICS, OPTIMIZERS, SCHEDULERS)

INHERITED = ("scale", "phase", "name")
"""Parameters that a component's section takes over from elsewhere."""


def json_schema() -> Schema:
    """The JSON schema of option files, for completion and checks in editors; imports every component."""
    schema = Options.model_json_schema()
    definitions = cast("Schema", schema.setdefault("$defs", {}))
    loader = cast("Schema", definitions.pop("DatasetOptions"))["properties"]
    loader.pop("component")
    beside = {DATASETS.kind: loader, LOSSES.kind: LossEntry.model_json_schema()["properties"]}
    required = {LOSSES.kind: ["loss_weight"], METRICS.kind: []}
    for registry in REGISTRIES:
        definitions[registry.kind] = _component_schema(
            registry, beside.get(registry.kind, {}), ["type", *required.get(registry.kind, [])], definitions
        )
    definitions[METRICS.kind]["required"] = []  # the label says the type
    _automations(definitions)
    schema = _with_references(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _names(registry: Registry) -> list[str]:
    """What is registered; an automation under one name, for the key of its section says which it is."""
    names = registry.names()
    return [name for name in TYPES.values() if name in names] if registry is AUTOMATIONS else names


def _automations(definitions: Schema) -> None:
    """An automation's section under its key and under its name: its type need not be written."""
    fields = cast("Schema", definitions["AutomationsOptions"])["properties"]
    for key, name in TYPES.items():
        schema = _parameters(AUTOMATIONS, name) if name in _names(AUTOMATIONS) else {}
        definitions.update(schema.get("$defs", {}))
        own = cast("Schema", schema.get("properties", {}))
        properties: Schema = {"type": {}, **AutomationEntry.model_json_schema()["properties"], **own}
        fallback: Schema = {short: own.get(f"fallback_{short}", {}) for short in FALLBACKS.get(key, ())}
        if key == STOPPING:
            fallback["early_stopping"] = {"enum": [False, None]}
        if fallback:
            properties["fallback"] = {
                "type": ["object", "null"],
                "properties": fallback,
                "additionalProperties": False,
            }
        kinds = ["object", "boolean", "null"]
        definitions[name] = {"type": kinds, "properties": properties, "additionalProperties": False}
        fields[key] = fields[name] = {"$ref": f"#/$defs/{name}", "description": fields[key]["description"]}


def _component_schema(registry: Registry, beside: Schema, required: list[str], definitions: Schema) -> Schema:
    names = registry.names()
    branches: list[Schema] = []
    for name in names:
        own = _parameters(registry, name)
        definitions.update(own.get("$defs", {}))
        needed = [each for each in own.get("required", []) if each not in INHERITED]
        branches.append(
            {
                "if": {"properties": {"type": {"pattern": _spellings(registry, name)}}, "required": ["type"]},
                "then": {
                    "properties": {"type": {}, **beside, **own["properties"]},
                    "required": needed,
                    "additionalProperties": False,
                },
            }
        )
    kind = {"type": "string", "description": f"Name of the {registry.kind}.", "examples": names}
    return {"type": "object", "properties": {"type": kind}, "required": required, "allOf": branches}


def _parameters(registry: Registry, name: str) -> Schema:
    return {"properties": {}, **parameters_model(registry.get(name)).model_json_schema(by_alias=True)}


def _spellings(registry: Registry, name: str) -> str:
    """A regular expression for the ways in which a type may be written: case and underscores do not count."""
    letters = [f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in registry.normalize(name)]
    return f"^_*{'_*'.join(letters)}_*([lL][oO][sS][sS])?$" if registry is LOSSES else f"^_*{'_*'.join(letters)}_*$"


def _with_references(value: Any) -> Any:
    """Component fields as references to their kind's definition."""
    if isinstance(value, list):
        return [_with_references(each) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    schema = cast("Schema", value)
    if isinstance(schema.get("component"), str):
        return {"$ref": f"#/$defs/{schema['component']}".replace(" ", "%20")}
    if schema.get("$ref") == "#/$defs/DatasetOptions":
        return {"$ref": f"#/$defs/{DATASETS.kind}".replace(" ", "%20")}
    return {name: _with_references(each) for name, each in schema.items()}


def option_keys() -> list[str]:
    """Every key that an option file may have: `train.total_iter`, `datasets.*.type`, `loss:l1loss.reduction`."""
    keys = [f"{path}{name}" for path, model in sections() for name in model.model_fields if name != "component"]
    for registry in (*REGISTRIES, AUTOMATIONS):
        for name in _names(registry):
            keys += [f"{registry.kind}:{name}", *(f"{registry.kind}:{name}.{each}" for each in _fields(registry, name))]
    return sorted(keys)


def _fields(registry: Registry, name: str) -> list[str]:
    return list(_parameters(registry, name)["properties"])


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections of an option file with the prefix of their keys."""
    yield "", Options
    yield "datasets.*.", DatasetOptions
    for name in ("path", "train", "val", "logger"):
        annotation = Options.model_fields[name].annotation
        models = [annotation, *getattr(annotation, "__args__", ())]
        yield f"{name}.", next(each for each in models if isinstance(each, type) and issubclass(each, Section))
    yield "train.losses[].", LossEntry
    yield "train.loss_scheduler[].", SchedulerParams
    yield "train.training_automations.", AutomationsOptions
    yield "train.training_automations.*.", AutomationEntry


def reference_page() -> str:
    """All options as Markdown: one table a section, then every component with its parameters."""
    lines = [
        "# Options",
        "",
        "Generated from the program; do not edit. Iterations may be written 20000, 2e4 or 20k.",
        "",
    ]
    for path, model in sections():
        schema = model.model_json_schema()
        title = f"`{path.rstrip('.')}`" if path else "Top level"
        lines += [f"## {title}", "", inspect.getdoc(model) or "", ""]
        lines += _table(schema, {name for name in model.model_fields if name != "component"})
    for registry in (*REGISTRIES, AUTOMATIONS):
        lines += [f"# Type: {registry.kind}", ""]
        for name in _names(registry):
            schema = _parameters(registry, name)
            if registry is AUTOMATIONS:
                schema["properties"] |= _own_number(name)
            summary = (inspect.getdoc(registry.get(name)) or "").partition("\n\n")[0].replace("\n", " ")
            lines += [f"## `{name}`", "", summary, ""]
            lines += _table(schema, set(schema["properties"])) if schema["properties"] else ["No parameters.", ""]
    return "\n".join(lines)


def _own_number(name: str) -> Schema:
    """The parameter that every automation has, with the number of this one."""
    schema = AutomationEntry.model_json_schema()["properties"]["max_adjustments"]
    number = getattr(AUTOMATIONS.get(name), "max_adjustments", None)
    return {"max_adjustments": {**schema, "default": number, "description": "after so many the last values hold"}}


_THERE = re.compile(r"\n?traiNNer-redux:\s*(.*?)(?=\n\s*\n|\n(?:Shapes|Range|Reference):|\n```|\Z)", flags=re.DOTALL)
"""What a loss's documentation says about the one of the same name there."""


def losses_page() -> str:
    """Every loss as Markdown: its documentation and parameters, and a table of what differs from traiNNer-redux."""
    lines = [
        "# Losses",
        "",
        "Generated from the program; do not edit. Every entry of `train.losses` has `type` and `loss_weight`, may have "
        "`name` and the keys of a [schedule](loss-scheduling.md), and the parameters of its type. `type` is matched "
        "without regard to case, underscores and a final `loss`.",
        "",
    ]
    differences: list[str] = []
    for name in LOSSES.names():
        text = inspect.getdoc(LOSSES.get(name)) or ""
        note = _THERE.search(text)
        differences.append(f"| `{name}` | {' '.join(note[1].split()) if note else 'not there'} |")
        body, fence, example = _THERE.sub("", text).partition("```yaml")
        lines += [f"## `{name}`", "", _paragraphs(body), "", f"{fence}{example}".strip(), ""]
        schema = _parameters(LOSSES, name)
        lines += _table(schema, set(schema["properties"])) if schema["properties"] else ["No parameters.", ""]
    table = ["# traiNNer-redux's losses of the same names", "", "| loss | there |", "|---|---|", *differences]
    return "\n".join([*lines, *table])


def _paragraphs(text: str) -> str:
    """A docstring as Markdown: its shapes, range and reference become a list."""
    listed = re.sub(r"(?<![\w`(])(Shapes|Range|Reference):", r"\n- **\1**:", text.strip())
    listed = re.sub(r"\s*\n- ", "\n- ", listed)
    return listed.replace("\n- ", "\n\n- ", 1)


def _table(schema: Schema, names: set[str]) -> list[str]:
    rows = ["| key | type | default | unit | meaning |", "|---|---|---|---|---|"]
    required = schema.get("required", [])
    for name, field in cast("Mapping[str, Schema]", schema["properties"]).items():
        if name in names:
            default = "required" if name in required else f"`{json.dumps(field.get('default'))}`"
            cells = (f"`{name}`", _kind(field), default, field.get("unit", ""), field.get("description", ""))
            rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "switch", "null": "null"}


def _kind(field: Schema) -> str:
    """The type of a field in words, with its limits."""
    if "anyOf" in field:
        kinds = [_kind(each) for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in field or "enum" in field:
        return ", ".join(f"`{each}`" for each in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}" if "items" in field else "list"
    signs = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
    limits = [f"{sign} {field[name]}" for name, sign in signs if name in field]
    return " ".join([_KINDS.get(str(field.get("type")), "section"), ", ".join(limits)]).strip()
