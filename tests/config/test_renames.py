"""Old and moved keys: read as what they are now, reported as what the file says."""

from __future__ import annotations

import pytest

from traiNNer.config.vocabulary import DATASET_KEYS, LOSS_KEYS, SECTIONS, SET_BY_PROGRAM

from .conftest import GOOD, change

LOSSES = "  losses:\n    - type: ConfigTestLoss\n      loss_weight: 1.0\n"


def test_top_level_losses_are_those_of_train(load) -> None:
    text = change(LOSSES, "") + "losses:\n  - {type: ConfigTestLoss, loss_weight: 0.5}\n"

    options = load(text)

    assert [loss["loss_weight"] for loss in options.train.losses] == [0.5]
    assert str(options.problem("train.losses[0].type", "x")).endswith(":42: losses[0].type: x")


def test_old_forms_of_losses_follow_the_list(load) -> None:
    text = change(
        LOSSES,
        LOSSES + "  pixel_opt:\n    type: ConfigTestLoss\n    loss_weight: 2\n    reduction: sum\n  gan_opt: ~\n",
    )

    options = load(text)

    assert [(loss["loss_weight"], loss["reduction"]) for loss in options.train.losses] == [(1.0, "mean"), (2.0, "sum")]
    assert str(options.problem("train.losses[1].reduction", "x")).endswith(":35: train.pixel_opt.reduction: x")


def test_a_perceptual_loss_as_basicsr_writes_it(load, mistakes) -> None:
    old = (
        "  perceptual_opt:\n    loss_weight: 1.0\n    layer_weights: {conv2_2: 0.1, conv5_4: 1}\n    criterion: l1\n"
        "    vgg_type: vgg19\n    use_input_norm: true\n    range_norm: false\n    style_weight: 0\n"
    )

    options = load(change(LOSSES, old))

    [loss] = options.train.losses
    assert (loss["type"], loss["criterion"], loss["layer_weights"]) == (
        "perceptualloss",
        "l1",
        {"conv2_2": 0.1, "conv5_4": 1.0},
    )
    assert [notice.split(": ")[1].rpartition(".")[2] for notice in options.notices] == [
        "vgg_type",
        "use_input_norm",
        "range_norm",
    ]
    assert mistakes(change(LOSSES, old.replace("vgg19", "vgg16").replace("conv5_4", "conv5_5"))) == [
        "x.yml:31: train.perceptual_opt.layer_weights.conv5_5: found 'conv5_5'; accepted: a layer of VGG, conv1_1 to "
        "relu5_4 or pool1 to pool5 (did you mean conv5_4?)",
        "x.yml:33: train.perceptual_opt.vgg_type: not supported yet; accepted: leaving it out, or vgg19",
    ]


def test_mistakes_in_an_old_form_name_the_old_key(mistakes) -> None:
    text = change(LOSSES, "  pixel_opt:\n    loss_weight: 2\n    reduction: men\n    type: ConfigTestLoss\n")

    assert mistakes(text) == [
        "x.yml:31: train.pixel_opt.reduction: found 'men'; accepted: 'mean' or 'sum' (did you mean mean?)"
    ]


def test_an_old_form_without_type(mistakes) -> None:
    assert mistakes(change(LOSSES, "  pixel_opt:\n    loss_weight: 2\n")) == [
        "x.yml:29: train.pixel_opt.type: required key is missing; accepted: the name of the loss"
    ]


NOT_YET = [
    *((f"{section}.{key}" if section else key) for section, table in SECTIONS.items() for key in table),
    *(f"datasets.train.{key}" for key in DATASET_KEYS),
    *(f"train.losses[0].{key}" for key in LOSS_KEYS),
    *SET_BY_PROGRAM,
]


@pytest.mark.parametrize("key", NOT_YET)
def test_every_key_that_is_not_supported_yet_is_refused_by_name(key: str, mistakes) -> None:
    section, _, name = key.rpartition(".")
    anchors = {
        "": ("num_gpu: 0", ""),
        "train": ("  total_iter: 2000", "  "),
        "path": ("num_gpu: 0", ""),
        "logger": ("  print_freq: 10", "  "),
        "datasets.train": ("    gt_size: 32", "    "),
        "train.losses[0]": ("      loss_weight: 1.0", "      "),
    }
    anchor, indent = anchors[section]
    line = f"path: {{{name}: something}}" if section == "path" else f"{indent}{name}: something"

    found = mistakes(change(anchor, f"{anchor}\n{line}"))

    assert len(found) == 1
    assert f": {key}: " in found[0]
    assert "not supported yet; accepted: leaving it out" in found[0] or "set by the program itself" in found[0]


def test_a_parameter_of_the_component_wins_over_the_table(load) -> None:
    from traiNNer.utils.registry import LOSSES as REGISTRY

    from .conftest import registered

    class Powerful:
        def __init__(self, *, power: float = 2.0) -> None:
            self.power = power

        def forward(self, output: object, target: object) -> None: ...

    with registered(REGISTRY, "powerfulloss", Powerful):
        loss = load(change("    - type: ConfigTestLoss", "    - type: Powerful\n      power: 3.0")).train.losses[0]

    assert loss["power"] == 3.0


def test_null_is_not_written(load) -> None:
    text = change(
        "num_gpu: 0", "network_ae: ~\nnetwork_d:\npath:\n  pretrain_network_g: ~\n  resume_state: ~\nauto_resume: ~"
    )

    options = load(text)

    assert (options.network_d, options.auto_resume, options.notices) == (None, False, [])
    assert load(GOOD).path == options.path
