"""The page and the picture have every scheduler."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from traiNNer.utils.registry import SCHEDULERS
from traiNNer.utils.schema import accepted_names

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = sorted(set(SCHEDULERS.names()) - {"get_wsd_schedule"})


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figure_of_schedulers", DOCS / "figures" / "schedulers.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_draws_every_scheduler() -> None:
    figure = drawing()
    assert sorted({curve["type"] for panel in figure.PANELS for curve in panel}) == NAMES
    for panel in figure.PANELS:
        for curve in panel:
            values = figure.factors(curve)
            assert len(values) == figure.TOTAL_ITER
            assert 0 <= min(values) <= max(values) <= 1
    assert len(figure.momenta(figure.CYCLED)) == figure.TOTAL_ITER
    assert (DOCS / "figures" / "schedulers.png").stat().st_size < 300_000


REQUIRED = {
    "MultiStepLR": {"milestones": [1]},
    "MultiStepRestartLR": {"milestones": [1]},
    "CosineAnnealingWarmRestarts": {"T_0": 1},
    "CosineAnnealingRestartLR": {"periods": [1]},
}
UNLESS_GIVEN = {"CosineAnnealingLR.eta_min_factor": "0.1", "MultiStepRestartLR.restarts": "[0]"}
"""Defaults that the signature cannot have, because another option or the run decides."""


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_parameters_and_their_defaults(name: str) -> None:
    page = (DOCS / "schedulers.md").read_text(encoding="utf-8")
    [row] = re.findall(rf"^\| `{name}` \|.*$", page, flags=re.MULTILINE)
    text = page.partition("## ReduceLROnPlateau")[2] if "see below" in row else row
    missing = [each for each in accepted_names(SCHEDULERS.get(name)) if not re.search(rf"(`|    ){each}\b", text)]
    assert missing == []
    values = SCHEDULERS.validate({"type": name, **REQUIRED.get(name, {})})
    for parameter, written in re.findall(r"`(\w+): ([^`]+)`", row):
        default = values[parameter]
        if default is None:
            assert UNLESS_GIVEN[f"{name}.{parameter}"] == written
        else:
            assert default == yaml.safe_load(re.sub(r"e(\d)", r".0e+\1", written) if "1e" in written else written)
