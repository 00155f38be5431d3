"""Whatever stands in a file, it is loaded or refused in the one form; nothing else is raised."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traiNNer.config import load_options
from traiNNer.utils.errors import ConfigError

from .conftest import GOOD
from .test_mistakes import FORM

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.sampled_from(
        ["", "auto", "20k", "30%", "ConfigTestNet", "l1loss", "psnr", "name", "a.b[0]", "(did you mean x?)"]
    ),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "name", "scale", "enabled", "fallback", "loss_weight", "x-y", "1", "a.b"]), inner
        ),
    ),
    max_leaves=5,
)
NAMES = """
    train val datasets network_g network_d path logger losses pixel_opt optim_g scheduler metrics type name scale
    gt_size loss_weight total_iter training_automations eco wandb start_iter use_moa launcher debug [x]
    early_stopping AdaptiveGradientClipping dynamic_loss_scheduling
"""
KEYS = st.sampled_from(NAMES.split())


def _sections(value: Any) -> list[Any]:
    found = [value] if isinstance(value, dict | list) else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return found + [section for each in inner for section in _sections(each)]


@st.composite
def files(draw: st.DrawFn) -> str:
    data = copy.deepcopy(yaml.safe_load(GOOD.replace("2e-4", "0.0002")))
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from(_sections(data)))
        if isinstance(section, list):
            section.insert(draw(st.integers(0, len(section))), draw(VALUES))
        else:
            section[draw(st.one_of(st.sampled_from([*section] or ["x"]), KEYS))] = draw(VALUES)
    return yaml.safe_dump(data, allow_unicode=True)


@given(text=files())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_any_file_is_loaded_or_refused_in_the_one_form(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text, encoding="utf-8")
    try:
        options = load_options(path)
    except ConfigError as error:
        for problem in error.problems:
            line = str(problem)
            assert "\n" not in line
            assert FORM.fullmatch(line[line.index("x.yml") :]), line
            assert problem.line <= text.count("\n") + 1
    else:
        assert load_options(path).dump() == options.dump()
