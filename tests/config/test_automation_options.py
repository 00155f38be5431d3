"""The automations' section: where and how it may be written, its mistakes, and what follows from it."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from typing import Any

import pytest
import yaml

from traiNNer.config.automations import TYPES, clip_threshold
from traiNNer.config.reference import json_schema, reference_page
from traiNNer.config.sections import AutomationsOptions
from traiNNer.losses import build_loss
from traiNNer.utils.registry import AUTOMATIONS
from traiNNer.utils.schema import accepted_names

from .conftest import GOOD, change

CLIPPED = change("  total_iter: 2000\n", "  total_iter: 2000\n  grad_clip: true\n")
RATE, BATCH, CLIPPING, STOPPING = (
    "intelligent_learning_rate_scheduler",
    "dynamic_batch_size_optimizer",
    "adaptive_gradient_clipping",
    "intelligent_early_stopping",
)


def with_text(block: str, where: str = "", text: str = CLIPPED) -> str:
    """The file with a block at top level, under `train` or in `train.training_automations`, its first line marked."""
    block = textwrap.dedent(block).strip("\n")
    if where == "training_automations":
        block = f"training_automations:\n{textwrap.indent(block, '  ')}"
    if not where:
        return f"{text}{block}\n"
    return change("train:\n  total_iter", f"train:\n{textwrap.indent(block, '  ')}\n  total_iter", text)


def parameters(options: Any, name: str) -> dict[str, Any]:
    return dict(getattr(options.train.training_automations, name) or {})


def includes(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return found | wanted == found


SPELLED = {
    "intelligent_early_stopping": STOPPING,
    "IntelligentEarlyStopping": STOPPING,
    "early_stopping": STOPPING,
    "EarlyStopping": STOPPING,
    "Intelligent_Learning_Rate_Scheduler": RATE,
    "intelligent_learning_rate_scheduler": RATE,
    "DynamicBatchSizeOptimizer": BATCH,
    "dynamic_batch_size_optimizer": BATCH,
    "adaptiveGradientClipping": CLIPPING,
    "adaptive_gradient_clipping": CLIPPING,
    "DynamicLossScheduling": "dynamic_loss_scheduling",
    "dynamic_loss_scheduling": "dynamic_loss_scheduling",
}


@pytest.mark.parametrize("where", ["", "train", "training_automations", "top-level manager"])
@pytest.mark.parametrize("written", SPELLED)
def test_every_spelling_in_every_place(load, written: str, where: str) -> None:
    block = f"{written}:\n  max_adjustments: 7\n"
    if where == "top-level manager":
        block, where = f"training_automations:\n{textwrap.indent(block, '  ')}", ""

    found = load(with_text(block, where)).train.training_automations

    assert list(found.active) == list(found.written) == [SPELLED[written]]
    assert found.active[SPELLED[written]]["max_adjustments"] == 7
    assert found.active[SPELLED[written]].type == TYPES[SPELLED[written]]


@pytest.mark.parametrize("where", ["", "train", "training_automations"])
@pytest.mark.parametrize("key", ["patence", "fallback_x", "fallback.early_stoping"])
def test_a_mistake_is_reported_where_and_as_it_stands_in_the_file(mistakes, where: str, key: str) -> None:
    section = {"early_stopping": {key: 5} if "." not in key else {"fallback": {key.partition(".")[2]: 5}}}
    text = with_text(yaml.safe_dump(section), where)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if key.rpartition(".")[2] in each)
    prefix = {"": "", "train": "train.", "training_automations": "train.training_automations."}[where]

    (found,) = mistakes(text)

    assert found.startswith(f"x.yml:{line}: {prefix}early_stopping.{key}: unknown key; accepted: ")
    assert ("did you mean" in found) is (key != "fallback_x")


BOTH = "x.yml:{}: {}: the same as {} in line {}; accepted: one of them"


def test_a_section_written_twice_names_both_places(mistakes) -> None:
    text = with_text("IntelligentEarlyStopping:\n  patience: 100", "training_automations") + "early_stopping:\n"
    last = len(text.splitlines())

    assert mistakes(text) == [
        BOTH.format(last, "early_stopping", "train.training_automations.IntelligentEarlyStopping", 22)
    ]


def test_spellings_side_by_side_are_written_twice(mistakes) -> None:
    text = with_text("EarlyStopping: {}\nearly_stopping: {}", "train")

    assert mistakes(text) == [BOTH.format(22, "train.early_stopping", "train.EarlyStopping", 21)]


def test_the_manager_written_twice(mistakes) -> None:
    text = with_text("enabled: true", "training_automations") + "training_automations: {enabled: true}\n"
    last = len(text.splitlines())

    assert mistakes(text) == [BOTH.format(last, "training_automations", "train.training_automations", 21)]


def test_a_fallback_written_twice(mistakes) -> None:
    text = with_text("AdaptiveGradientClipping:\n  fallback_threshold: 1.0\n  fallback:\n    threshold: 2.0")
    last = len(text.splitlines())

    name = "AdaptiveGradientClipping"
    assert mistakes(text) == [BOTH.format(last, f"{name}.fallback.threshold", f"{name}.fallback_threshold", last - 2)]


@pytest.mark.parametrize(
    ("block", "name", "wanted"),
    [
        (
            "fallback: {scheduler_type: cosine, scheduler_params: {T_max: 9, eta_min: 0.5}}",
            RATE,
            {"fallback_scheduler_type": "cosine", "fallback_scheduler_params": {"T_max": 9, "eta_min": 0.5}},
        ),
        ("fallback: {batch_size: 8}", BATCH, {"fallback_batch_size": 8}),
        ("fallback: {threshold: 3.0}", CLIPPING, {"fallback_threshold": 3.0}),
        ("fallback: {early_stopping: false}", STOPPING, {"patience": 2000}),
        ("fallback:", CLIPPING, {"fallback_threshold": 1.0}),
    ],
)
def test_a_fallback_becomes_parameters(load, block: str, name: str, wanted: dict[str, Any]) -> None:
    found = parameters(load(with_text(f"{name}:\n  {block}")), name)

    assert includes(found, wanted)
    assert "fallback" not in found


LAST = {
    "early_stopping: {fallback: {early_stopping: true}}": (
        "early_stopping.fallback.early_stopping: found true; accepted: false"
    ),
    "early_stopping: {fallback: {threshold: 1.0}}": (
        "early_stopping.fallback.threshold: unknown key; accepted: early_stopping"
    ),
    "DynamicBatchSizeOptimizer: {fallback: {batchsize: 4}}": (
        "DynamicBatchSizeOptimizer.fallback.batchsize: unknown key; accepted: batch_size (did you mean batch_size?)"
    ),
    "IntelligentLearningRateScheduler: {fallback: cosine}": (
        "IntelligentLearningRateScheduler.fallback: found 'cosine'; accepted: a section with scheduler_type, "
        "scheduler_params"
    ),
    "IntelligentLearningRateScheduler: {fallback: {scheduler_params: 3}}": (
        "IntelligentLearningRateScheduler.fallback.scheduler_params: found 3; accepted: a section"
    ),
    "adaptive_gradient_clipping: {fallback: {threshold: 0.0}}": (
        "adaptive_gradient_clipping.fallback.threshold: found 0.0; accepted: greater than 0"
    ),
    "dynamic_loss_scheduling: {fallback: {mode: off}}": "dynamic_loss_scheduling.fallback: unknown key; accepted: ",
    "early_stopping: 5": "early_stopping: found 5; accepted: a section, true or false",
    "training_automations: [early_stopping]": (
        "training_automations: found ['early_stopping']; accepted: a section, true or false"
    ),
    "early_stopping: {type: AdaptiveGradientClipping}": (
        "early_stopping.type: found 'AdaptiveGradientClipping'; accepted: leaving it out"
    ),
    "early_stopping: {enabled: 1}": "early_stopping.enabled: found 1; accepted: true or false",
    "early_stopping: {max_adjustments: -1}": "early_stopping.max_adjustments: found -1; accepted: at least 0",
    "early_stopping: {patience: 1.5}": "early_stopping.patience: found 1.5; accepted: a whole number",
    "training_automations: {inteligent_early_stoping: {}}": (
        "training_automations.inteligent_early_stoping: unknown key; accepted: adaptive_gradient_clipping, "
    ),
    "training_automations: {enabeld: true}": "training_automations.enabeld: unknown key; accepted: ",
    "dynamic_loss_scheduling: {anchor: configtest}": (
        "dynamic_loss_scheduling.anchor: found configtest; accepted: configtestloss, the labels of train.losses "
        "(did you mean configtestloss?)"
    ),
}


@pytest.mark.parametrize("line", LAST)
def test_a_mistake_is_one_line(mistakes, line: str) -> None:
    text = with_text(line)

    (found,) = mistakes(text)

    assert found.startswith(f"x.yml:{len(text.splitlines())}: {LAST[line]}")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("training_automations: {inteligent_early_stoping: {}}", "intelligent_early_stopping"),
        ("training_automations: {enabeld: true}", "enabled"),
        ("early_stopping: {patence: 3}", "patience"),
        ("early_stopping: {max_adjustment: 3}", "max_adjustments"),
    ],
)
def test_the_nearest_name_is_offered(mistakes, line: str, meant: str) -> None:
    (found,) = mistakes(with_text(line))

    assert found.endswith(f"(did you mean {meant}?)")


@pytest.mark.parametrize(
    ("block", "active"),
    [
        ("early_stopping:", True),
        ("early_stopping: true", True),
        ("early_stopping: {}", True),
        ("early_stopping: {patience: 500}", True),
        ("early_stopping: false", False),
        ("early_stopping: {enabled: false}", False),
        ("early_stopping: {}\ntraining_automations: {enabled: false}", False),
        ("early_stopping: {}\ntraining_automations: false", False),
        ("early_stopping: {}\ntraining_automations: true", True),
        ("early_stopping: {}\ntraining_automations:", True),
    ],
)
def test_on_and_off(load, block: str, active: bool) -> None:
    options = load(with_text(block))

    assert list(options.train.training_automations.active) == [STOPPING] * active
    assert list(options.train.training_automations.written) == [STOPPING]
    assert any("switched off" in notice for notice in options.notices) is not active


def test_notices_say_what_is_off(load) -> None:
    text = with_text("early_stopping: false")
    (notice,) = load(text).notices
    assert notice.endswith(f"x.yml:{len(text.splitlines())}: early_stopping: switched off")

    text = with_text("training_automations:\n  enabled: false\n  EarlyStopping:\n  DynamicBatchSizeOptimizer: false")
    (notice,) = load(text).notices
    assert notice.endswith(f"training_automations: switched off, and with it {BATCH}, {STOPPING}")


def test_without_a_section_there_is_nothing(load) -> None:
    found = load(GOOD).train.training_automations

    assert (found.active, found.dump()) == ({}, {"enabled": True})


@pytest.mark.parametrize(("written", "expected"), [("2k", 2000), ("2e3", 2000), ("40%", 800), ("500", 500)])
def test_iterations_as_everywhere(load, written: str, expected: int) -> None:
    options = load(with_text(f"early_stopping: {{warmup_iterations: {written}}}"))

    assert parameters(options, STOPPING)["warmup_iterations"] == expected


RTX_3060 = """
    training_automations:
      enabled: true
      IntelligentLearningRateScheduler:
        enabled: true
        plateau_patience: 1000
        target_vram_usage: 0.80
      DynamicBatchSizeOptimizer:
        enabled: true
        target_vram_usage: 0.80
        safety_margin: 0.10
        min_batch_size: 1
        max_batch_size: 16
      AdaptiveGradientClipping: {enabled: true, initial_threshold: 1.0}
      IntelligentEarlyStopping: {enabled: true, patience: 2000, monitor_metric: "val/psnr"}
"""


@pytest.mark.parametrize("where", ["", "train"])
def test_the_block_for_12_gb(load, where: str) -> None:
    options = load(with_text(RTX_3060, where))

    assert list(options.train.training_automations.active) == [RATE, BATCH, CLIPPING, STOPPING]
    wanted = {"target_vram_usage": 0.8, "safety_margin": 0.1, "min_batch_size": 1, "max_batch_size": 16}
    assert includes(parameters(options, BATCH), wanted)
    assert includes(parameters(options, CLIPPING), {"initial_threshold": 1.0})
    assert includes(parameters(options, STOPPING), {"patience": 2000, "monitor_metric": "val/psnr"})
    assert parameters(options, RATE)["plateau_patience"] == 1000
    (notice,) = options.notices
    name = "training_automations.IntelligentLearningRateScheduler.target_vram_usage"
    assert notice.endswith(f"{name}: belongs to DynamicBatchSizeOptimizer and has no effect here")


FOUR = """
    dynamic_loss_scheduling: {enabled: true, auto_calibrate: true}
    training_automations:
      intelligent_learning_rate_scheduler: {enabled: true, strategy: "adaptive"}
    dynamic_batch_size_optimizer: {enabled: true, target_vram_usage: 0.80, safety_margin: 0.08}
    early_stopping: {enabled: true, patience: 3000, min_improvement: 0.0005}
"""


@pytest.mark.parametrize("where", ["", "train"])
def test_the_four_blocks_side_by_side(load, where: str) -> None:
    options = load(with_text(FOUR, where, GOOD))

    assert list(options.train.training_automations.active) == ["dynamic_loss_scheduling", RATE, BATCH, STOPPING]
    assert includes(parameters(options, "dynamic_loss_scheduling"), {"auto_calibrate": True})
    assert includes(parameters(options, RATE), {"strategy": "adaptive"})
    assert includes(parameters(options, BATCH), {"target_vram_usage": 0.8, "safety_margin": 0.08})
    assert includes(parameters(options, STOPPING), {"patience": 3000, "min_improvement": 0.0005})
    assert options.notices == []


@pytest.mark.parametrize("block", [RTX_3060, FOUR, "early_stopping: false\nadaptive_gradient_clipping: false"])
def test_the_resolved_options_load_as_the_same(load, block: str) -> None:
    options = load(with_text(block))

    again = load(yaml.safe_dump(json.loads(json.dumps(options.dump()))))

    assert again.dump() == options.dump()
    assert again.train.training_automations.active.keys() == options.train.training_automations.active.keys()


@pytest.mark.parametrize("grad_clip", ["  grad_clip: false\n", ""])
def test_clipping_needs_grad_clip(mistakes, grad_clip: str) -> None:
    text = with_text("AdaptiveGradientClipping:", "", change("  grad_clip: true\n", grad_clip, CLIPPED))

    assert mistakes(text) == [
        f"x.yml:{len(text.splitlines())}: AdaptiveGradientClipping: on without grad_clip; accepted: "
        "train.grad_clip: true, or enabled: false here"
    ]
    assert mistakes(text.replace("AdaptiveGradientClipping:", "AdaptiveGradientClipping: false")) == []


@pytest.mark.parametrize(
    ("block", "threshold"),
    [
        ("", 2.5),
        ("adaptive_gradient_clipping: {initial_threshold: 0.7}", 0.7),
        ("adaptive_gradient_clipping: {enabled: false, initial_threshold: 0.7}", 2.5),
        ("adaptive_gradient_clipping: {enabled: false, fallback: {threshold: 0.3}}", 0.3),
        ("adaptive_gradient_clipping: {fallback: {threshold: 0.3}}\ntraining_automations: false", 0.3),
        ("adaptive_gradient_clipping: {}\ntraining_automations: false", 2.5),
    ],
)
def test_where_gradients_are_clipped(load, block: str, threshold: float) -> None:
    text = change("  grad_clip: true\n", "  grad_clip: true\n  grad_clip_max_norm: 2.5\n", CLIPPED)

    options = load(with_text(block, "", text))

    assert clip_threshold(options.train) == threshold
    again = load(yaml.safe_dump(json.loads(json.dumps(options.dump()))))
    assert clip_threshold(again.train) == threshold


def test_without_grad_clip_nothing_is_clipped(load) -> None:
    assert clip_threshold(load(GOOD).train) is None
    assert clip_threshold(load(with_text("adaptive_gradient_clipping: false", "", GOOD)).train) is None
    assert clip_threshold(load(with_text("adaptive_gradient_clipping: false")).train) == 100.0
    assert clip_threshold(load(CLIPPED).train) == 100.0


GAPS = {
    "no validation": ("  val_enabled: true", "  val_enabled: false", "early_stopping: on without validations that"),
    "no metrics": (
        "  metrics_enabled: true",
        "  metrics_enabled: false",
        "early_stopping: on without validations that",
    ),
    "no list of metrics": ("  metrics:\n    config_test_metric:\n      better: higher\n", "", "val.metrics: required"),
    "no interval": ("  val_freq: 100\n", "", "val.val_freq: required key is missing"),
    "no data": (GOOD[GOOD.index("  val:\n    name") : GOOD.index("network_g")], "", "val.val_enabled: found true, but"),
}


@pytest.mark.parametrize("gap", GAPS)
def test_early_stopping_needs_validations(mistakes, gap: str) -> None:
    old, new, message = GAPS[gap]
    text = with_text("early_stopping:\n", "", change(old, new))

    (found,) = mistakes(text)

    assert re.match(rf"x\.yml:\d+: {re.escape(message)}", found)
    if "early_stopping" in message:
        assert found.startswith(f"x.yml:{len(text.splitlines())}: ")
        assert mistakes(text.replace("early_stopping:", "early_stopping: false")) == []


def test_early_stopping_that_comes_too_soon_is_told(load) -> None:
    text = with_text("early_stopping: {patience: 50}\nIntelligentLearningRateScheduler: {plateau_patience: 60}")

    told = [notice.partition("early_stopping.patience: ")[2] for notice in load(text).notices]

    assert told == [
        "50 is less than plateau_patience, 60: it stops before the rate can be lowered",
        "50 is less than val_freq, 100: one validation without an improvement ends the run",
    ]


def test_early_stopping_is_compared_with_the_default_too(load) -> None:
    text = with_text("early_stopping: {patience: 500}\nIntelligentLearningRateScheduler:")

    (notice,) = load(text).notices

    assert notice.endswith("500 is less than plateau_patience, 1,000: it stops before the rate can be lowered")


def test_the_norm_that_the_automation_replaces_is_told(load) -> None:
    text = change("  grad_clip: true\n", "  grad_clip: true\n  grad_clip_max_norm: 2.5\n", CLIPPED)

    (notice,) = load(with_text("adaptive_gradient_clipping:", "", text)).notices

    assert "train.grad_clip_max_norm: has no effect with adaptive_gradient_clipping" in notice


ENTRY = "    - type: ConfigTestLoss\n      loss_weight: 1.0\n"


@pytest.mark.parametrize(
    ("keys", "block", "told"),
    [
        ("share: 0.5", "dynamic_loss_scheduling:", []),
        ("fixed: true", "dynamic_loss_scheduling:", []),
        ("share: 0.5", "", ["train.losses[0].share: has no effect without dynamic_loss_scheduling"]),
        ("fixed: true", "", ["train.losses[0].fixed: has no effect without dynamic_loss_scheduling"]),
        ("fixed: false", "", []),
        (
            "share: 0.5\n      fixed: true",
            "dynamic_loss_scheduling:",
            ["train.losses[0].share: has no effect with fixed: true"],
        ),
        (
            "share: 0.5\n      target_iter: 500\n      target_weight: 2.0",
            "dynamic_loss_scheduling:",
            ["train.losses[0].share: holds whatever the weight is: what target_weight changes is undone afterwards"],
        ),
    ],
)
def test_shares_of_losses(load, keys: str, block: str, told: list[str]) -> None:
    options = load(with_text(block, "", change(ENTRY, f"{ENTRY}      {keys}\n")))

    (entry,) = options.train.losses
    assert includes(dict(entry), yaml.safe_load(keys.replace("      ", "")))
    assert [notice[notice.index("train.losses") :] for notice in options.notices] == told


def test_a_share_is_not_the_loss_s_own_business() -> None:
    entry = {"type": "l1loss", "loss_weight": 0.5, "share": 0.1, "fixed": True}

    assert build_loss(entry).loss_weight == 0.5


def test_a_share_is_positive(mistakes) -> None:
    text = with_text("dynamic_loss_scheduling:", "", change(ENTRY, f"{ENTRY}      share: 0.0\n"))

    assert mistakes(text) == ["x.yml:32: train.losses[0].share: found 0.0; accepted: greater than 0.0"]


def test_every_automation_has_a_section() -> None:
    assert ["enabled", *TYPES] == list(AutomationsOptions.model_fields)
    assert {AUTOMATIONS.get(name) for name in AUTOMATIONS.names()} == {AUTOMATIONS.get(name) for name in TYPES.values()}


KNOWN = sorted({AUTOMATIONS.canonical(name) for name in AUTOMATIONS.names()} & set(TYPES.values()))


@pytest.mark.parametrize("name", KNOWN)
def test_the_example_of_an_automation_loads(mistakes, name: str) -> None:
    text = inspect.getdoc(AUTOMATIONS.get(name)) or ""
    example = re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert example is not None

    found = [line for line in mistakes(with_text(example[1])) if "the labels of train.losses" not in line]

    assert found == []


def test_every_parameter_is_in_the_reference_and_in_the_schema() -> None:
    page, schema = reference_page(), json_schema()
    section = schema["$defs"]["AutomationsOptions"]["properties"]
    for key, name in TYPES.items():
        assert f"## `{name}`" in page
        table = page[page.index(f"## `{name}`") :].partition("\n## ")[0]
        properties = schema["$defs"][name]["properties"]
        assert section[key]["$ref"] == section[name]["$ref"] == f"#/$defs/{name}"
        for parameter in [*accepted_names(AUTOMATIONS.get(name)), "max_adjustments"]:
            assert f"| `{parameter}` |" in table
            assert parameter in properties
    assert schema["$defs"]["IntelligentEarlyStopping"]["properties"]["fallback"]["additionalProperties"] is False
