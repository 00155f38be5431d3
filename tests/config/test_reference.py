"""The reference that is generated from sections and signatures, and what the users' documents demand of the names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from traiNNer.config.reference import json_schema, option_keys, reference_page, sections
from traiNNer.config.renames import RENAMED
from traiNNer.utils.registry import LOSSES, NETWORKS

KEYS = Path(__file__).parents[2] / "schemas" / "options-keys.json"


@pytest.mark.parametrize(("path", "model"), list(sections()), ids=[path or "top" for path, _ in sections()])
def test_every_field_says_what_it_does_and_in_which_unit(path: str, model) -> None:
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        assert field.description, f"{path}{name} has no description"
        assert isinstance(extra, dict), f"{path}{name} has no unit"
        assert extra["unit"], f"{path}{name} has no unit"


def test_the_schema_describes_sections_and_components() -> None:
    schema = json_schema()
    text = json.dumps(schema)

    assert schema["properties"]["scale"]["minimum"] == 1
    assert schema["properties"]["network_g"] == {"$ref": "#/$defs/network"}
    assert schema["$defs"]["TrainOptions"]["properties"]["total_iter"]["description"]
    network = next(each for each in schema["$defs"]["network"]["allOf"] if "features" in each["then"]["properties"])
    assert network["then"]["properties"]["act"]["enum"] == ["relu", "mish"]
    loss = next(each for each in schema["$defs"]["loss"]["allOf"] if "reduction" in each["then"]["properties"])
    assert set(loss["then"]["properties"]) >= {"loss_weight", "name", "type"}
    dataset = schema["$defs"]["data set"]["allOf"][0]["then"]["properties"]
    assert {"batch_size_per_gpu", "accum_iter"} <= set(dataset)
    assert '"component"' not in text


def test_the_schema_knows_the_spellings_of_a_type() -> None:
    import re

    branches = json_schema()["$defs"]["loss"]["allOf"]

    def matches(name: str) -> int:
        return sum(bool(re.search(each["if"]["properties"]["type"]["pattern"], name)) for each in branches)

    assert [matches(name) for name in ("configtestloss", "ConfigTestLoss", "config_test", "ConfigTestLos")] == [
        1,
        1,
        1,
        0,
    ]


def test_the_page_has_every_option() -> None:
    page = reference_page()

    for path, model in sections():
        for name in model.model_fields:
            assert name == "component" or f"| `{name}` |" in page, f"{path}{name}"
    for registry in (NETWORKS, LOSSES):
        for name in registry.names():
            assert f"## `{name}`" in page


def test_no_released_key_disappears() -> None:
    """A key goes only through renames.py; the list is written at a release by scripts/option_reference.py --keys."""
    released = set(json.loads(KEYS.read_text(encoding="utf-8")))

    gone = released - set(option_keys()) - set(RENAMED)

    assert not gone, f"released options that no longer exist: {sorted(gone)}"
