"""Whatever is registered is documented, and its example is one that an option file could hold."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from traiNNer.config.sections import AutomationEntry, DatasetOptions, LossEntry
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

REGISTRIES = [NETWORKS, LOSSES, METRICS, DATASETS, OPTIMIZERS, SCHEDULERS, AUTOMATIONS]
COMMON = {
    id(LOSSES): set(LossEntry.model_fields),
    id(DATASETS): set(DatasetOptions.LOADER_KEYS),
    id(AUTOMATIONS): set(AutomationEntry.model_fields),
}
"""Keys of a section that are not parameters of the component it names."""
INHERITED = {id(DATASETS): {"scale": 2}}
"""What a section takes from elsewhere in the option file when it does not say it."""
COMPONENTS = [(registry, name) for registry in REGISTRIES for name in registry.names()]


def documentation(registry: Registry, name: str) -> str:
    return inspect.getdoc(registry.get(name)) or ""


def example(text: str) -> Any:
    found = re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    return yaml.safe_load(found[1]) if found else None


def sections(node: Any, label: str = "") -> Iterator[dict[str, Any]]:
    """Every section of an example that names a type; a label may stand for it, as metrics have it."""
    if isinstance(node, list):
        for entry in node:
            yield from sections(entry)
    elif isinstance(node, dict):
        inner = [value for value in node.values() if isinstance(value, dict | list)]
        if "type" in node:
            yield node
        elif label and not inner:
            yield {"type": label, **node}
        else:
            for key, value in node.items():
                yield from sections(value, str(key))


@pytest.mark.parametrize(("registry", "name"), COMPONENTS, ids=lambda value: getattr(value, "kind", value))
class TestComponent:
    def test_says_what_it_computes_on_which_shapes_in_which_range_and_after_whom(
        self, registry: Registry, name: str
    ) -> None:
        text = documentation(registry, name)
        assert text.strip().split("\n")[0]
        missing = [word for word in ("Shapes:", "Range:", "Reference:") if word not in text]
        assert missing == []

    def test_has_an_example_that_is_valid(self, registry: Registry, name: str) -> None:
        found = list(sections(example(documentation(registry, name))))
        assert found, "no ```yaml block that names a type"
        known = [section for section in found if registry.get(section["type"]) is registry.get(name)]
        assert known, f"the example is of {[section['type'] for section in found]}"
        for section in known:
            own = {key: value for key, value in section.items() if key not in COMMON.get(id(registry), ())}
            registry.validate({**INHERITED.get(id(registry), {}), **own})

    def test_takes_named_parameters_only(self, registry: Registry, name: str) -> None:
        """`**kwargs` would let a misspelled option pass in silence."""
        kinds = {parameter.kind for parameter in inspect.signature(registry.get(name)).parameters.values()}
        assert kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_ONLY}


def test_every_kind_is_looked_at() -> None:
    assert {registry.kind for registry, _ in COMPONENTS} >= {"loss", "optimizer", "metric"}
