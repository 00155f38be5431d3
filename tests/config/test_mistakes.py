"""Every mistake in a file is one line that names file, line and key, what was found and what is accepted."""

from __future__ import annotations

import re

import pytest

from traiNNer.config import load_options
from traiNNer.utils.errors import ConfigError

from .conftest import GOOD, change, marked_line

FORM = re.compile(
    r"x\.yml:\d+: ([\w.\[\]<>-]+: )?\S.*; accepted: \S.*|x\.yml:\d+: [\w.\[\]-]+: required key is missing.*"
)

TRAIN_SET = GOOD[GOOD.index("  train:\n") : GOOD.index("  val:\n")]

# What is changed in the good file (the faulty line marked `# <-`), the key that is named, and what the message says.
CASES = {
    "unknown top-level key": (
        "num_gpu: 0",
        "num_gpus: 0  # <-",
        "num_gpus",
        "unknown key; accepted: ",
        "(did you mean num_gpu?)",
    ),
    "key with a dash": ("num_gpu: 0", "use-amp: true  # <-", "use-amp", "unknown key", "(did you mean use_amp?)"),
    "unknown key in train": (
        "  total_iter: 2000",
        "  total_iter: 2000\n  grad_clipp: true  # <-",
        "train.grad_clipp",
        "unknown key",
        "(did you mean grad_clip?)",
    ),
    "misspelled required key": (
        "  total_iter: 2000",
        "  total_itr: 2000  # <-",
        "train.total_itr",
        "unknown key",
        "(did you mean total_iter?)",
    ),
    "misspelled losses": ("  losses:", "  lossess:  # <-", "train.lossess", "unknown key", "(did you mean losses?)"),
    "misspelled loss_weight": (
        "      loss_weight: 1.0",
        "      loss_wieght: 1.0  # <-",
        "train.losses[0].loss_wieght",
        "unknown key",
        "(did you mean loss_weight?)",
    ),
    "unknown key in logger": (
        "  print_freq: 10",
        "  print_freq: 10\n  colour: 1  # <-",
        "logger.colour",
        "unknown key; accepted: print_freq",
        "",
    ),
    "unknown key in val": (
        "  val_freq: 100",
        "  val_freq: 100\n  tile_sise: 4  # <-",
        "val.tile_sise",
        "unknown key",
        "(did you mean tile_size?)",
    ),
    "unknown key in path": (
        "num_gpu: 0",
        "path:\n  pretrain_net_g: x  # <-",
        "path.pretrain_net_g",
        "unknown key",
        "(did you mean pretrain_network_g?)",
    ),
    "unknown phase": (
        "  val:\n    name: held_out",
        "  valid:  # <-\n    name: held_out",
        "datasets.valid",
        "unknown key; accepted: ",
        "",
    ),
    "wrong type, text for number": (
        "scale: 2",
        "scale: two  # <-",
        "scale",
        "found 'two'; accepted: a whole number",
        "",
    ),
    "wrong type, number for switch": (
        "num_gpu: 0",
        "use_amp: 1  # <-",
        "use_amp",
        "found 1; accepted: true or false",
        "",
    ),
    "YAML 1.1 switch": ("num_gpu: 0", "use_amp: yes  # <-", "use_amp", "found 'yes'; accepted: true or false", ""),
    "wrong type, switch for number": (
        "      loss_weight: 1.0",
        "      loss_weight: true  # <-",
        "train.losses[0].loss_weight",
        "found true; accepted: a number",
        "",
    ),
    "wrong type, section for number": (
        "scale: 2",
        "scale: {x: 2}  # <-",
        "scale",
        "found a section; accepted: a whole number",
        "",
    ),
    "wrong type in a union": (
        "num_gpu: 0",
        "num_gpu: all  # <-",
        "num_gpu",
        "found 'all'; accepted: 'auto' or a whole number",
        "",
    ),
    "wrong type, deep in a list": (
        "    dataroot_gt: [datasets/val1, datasets/val2]",
        "    dataroot_gt: [datasets/val1, 5]  # <-",
        "datasets.val.dataroot_gt[1]",
        "found 5; accepted: text",
        "",
    ),
    "wrong type, list for a union": (
        "    dataroot_gt: datasets/hr",
        "    dataroot_gt: 5  # <-",
        "datasets.train.dataroot_gt",
        "found 5; accepted: text or a list",
        "",
    ),
    "wrong type, section as text": (
        "logger:\n  print_freq: 10\n  save_checkpoint_freq: 100\n  use_tb_logger: false\n",
        "logger: often  # <-",
        "logger",
        "found 'often'; accepted: a section",
        "",
    ),
    "component as text": (
        "network_g:\n  type: ConfigTestNet\n  features: 8",
        "network_g: ConfigTestNet  # <-",
        "network_g",
        "found 'ConfigTestNet'; accepted: a section with `type`",
        "",
    ),
    "loss as text": (
        "    - type: ConfigTestLoss\n      loss_weight: 1.0",
        "    - ConfigTestLoss  # <-",
        "train.losses[0]",
        "found 'ConfigTestLoss'; accepted: a section with `type`",
        "",
    ),
    "losses as a section": (
        "    - type: ConfigTestLoss\n      loss_weight: 1.0",
        "    l1: {type: ConfigTestLoss, loss_weight: 1.0}",
        "train.losses",
        "found a section; accepted: a list",
        "losses:",
    ),
    "data sets as a number": (
        GOOD[GOOD.index("datasets:") : GOOD.index("network_g:")],
        "datasets: 5  # <-\n",
        "datasets",
        "found 5; accepted: a section",
        "",
    ),
    "data set as text": (
        TRAIN_SET,
        "  train: photographs  # <-\n",
        "datasets.train",
        "found 'photographs'; accepted: a",
        "",
    ),
    "train as a number": (
        GOOD[GOOD.index("train:\n  total") : GOOD.index("val:\n  val_enabled")],
        "train: 5  # <-\n",
        "train",
        "found 5; accepted: a section",
        "",
    ),
    "empty train": (
        GOOD[GOOD.index("train:\n  total") : GOOD.index("val:\n  val_enabled")],
        "train:\n",
        "train",
        "required key is missing; accepted: a section",
        "train:\nval:",
    ),
    "metrics as a list": (
        "    config_test_metric:\n      better: higher\n",
        "    - config_test_metric\n",
        "val.metrics",
        "found ['config_test_metric']; accepted: a section",
        "  metrics:\n",
    ),
    "empty name": ("name: tiny", "name:  # <-", "name", "found nothing (null); accepted: text", ""),
    "value out of range": (
        "  total_iter: 2000",
        "  total_iter: 0  # <-",
        "train.total_iter",
        "found 0; accepted: at least 1",
        "",
    ),
    "fraction of an iteration": (
        "  total_iter: 2000",
        "  total_iter: 20.5  # <-",
        "train.total_iter",
        "found 20.5; accepted: a whole number of iterations",
        "",
    ),
    "infinite weight": (
        "      loss_weight: 1.0",
        "      loss_weight: .inf  # <-",
        "train.losses[0].loss_weight",
        "found inf; accepted: a finite number",
        "",
    ),
    "NaN weight": (
        "      loss_weight: 1.0",
        "      loss_weight: .nan  # <-",
        "train.losses[0].loss_weight",
        "found nan; accepted: a finite number",
        "",
    ),
    "unknown choice": (
        "num_gpu: 0",
        "compile_mode: max-autotun  # <-",
        "compile_mode",
        "found 'max-autotun'; accepted: 'default'",
        "(did you mean max-autotune?)",
    ),
    "missing name": ("name: tiny\n", "", "name", "required key is missing", "scale: 2"),
    "missing network": (
        "network_g:\n  type: ConfigTestNet\n  features: 8\n",
        "",
        "network_g",
        "required key is missing",
        "name: tiny",
    ),
    "missing total_iter": (
        "  total_iter: 2000\n",
        "",
        "train.total_iter",
        "required key is missing",
        "train:\n  optim",
    ),
    "missing optimizer": (
        "  optim_g:\n    type: configtestoptimizer\n    lr: 2e-4\n    betas: [0.9, 0.99]\n",
        "",
        "train.optim_g",
        "required key is missing; accepted: a section with the type",
        "train:\n  total",
    ),
    "missing parameter": ("    lr: 2e-4\n", "", "train.optim_g.lr", "required key is missing", "optim_g:"),
    "missing type": (
        "  type: ConfigTestNet\n",
        "",
        "network_g.type",
        "required key is missing; accepted: the name of the network",
        "network_g:",
    ),
    "missing loss_weight": (
        "      loss_weight: 1.0\n",
        "",
        "train.losses[0].loss_weight",
        "required key is missing",
        "- type: ConfigTestLoss",
    ),
    "missing batch size": (
        "    batch_size_per_gpu: 4\n",
        "",
        "datasets.train.batch_size_per_gpu",
        "required key is missing; accepted: images per batch",
        "  train:\n    name",
    ),
    "missing train set": (
        TRAIN_SET,
        "",
        "datasets.train",
        "required key is missing",
        "datasets:",
    ),
    "missing folder": (
        "    dataroot_gt: datasets/hr\n",
        "",
        "datasets.train.dataroot_gt",
        "required key is missing",
        "  train:\n    name",
    ),
    "missing logger": (
        "logger:\n  print_freq: 10\n  save_checkpoint_freq: 100\n  use_tb_logger: false\n",
        "",
        "logger",
        "required key is missing; accepted: a section",
        "name: tiny",
    ),
    "missing val_freq": (
        "  val_freq: 100\n",
        "",
        "val.val_freq",
        "required key is missing, as val_enabled is true",
        "val:\n  val_enabled",
    ),
    "unknown network": (
        "  type: ConfigTestNet",
        "  type: ConfigTestNat  # <-",
        "network_g.type",
        "unknown network 'ConfigTestNat'; accepted: ",
        "(did you mean ConfigTestNet?)",
    ),
    "unknown loss": (
        "    - type: ConfigTestLoss",
        "    - type: ConfigTestLos  # <-",
        "train.losses[0].type",
        "unknown loss 'ConfigTestLos'; accepted: ",
        "(did you mean configtestloss?)",
    ),
    "unknown metric": (
        "    config_test_metric:",
        "    config_test_metrik:  # <-",
        "val.metrics.config_test_metrik.type",
        "unknown metric 'config_test_metrik'; accepted: ",
        "(did you mean config_test_metric?)",
    ),
    "unknown data set": (
        "    type: config_test_dataset",
        "    type: config_test_dtaset  # <-",
        "datasets.train.type",
        "unknown data set 'config_test_dtaset'; accepted: ",
        "(did you mean ConfigTestDataset?)",
    ),
    "unknown optimizer": (
        "    type: configtestoptimizer",
        "    type: configtestoptimiser  # <-",
        "train.optim_g.type",
        "unknown optimizer 'configtestoptimiser'; accepted: ",
        "(did you mean ConfigTestOptimizer?)",
    ),
    "unknown scheduler": (
        "    type: ConfigTestScheduler",
        "    type: ConfigTestSheduler  # <-",
        "train.scheduler.type",
        "unknown scheduler 'ConfigTestSheduler'; accepted: ",
        "(did you mean ConfigTestScheduler?)",
    ),
    "type that is no text": (
        "  type: ConfigTestNet",
        "  type: 5  # <-",
        "network_g.type",
        "found 5; accepted: the name of the network",
        "",
    ),
    "misspelled parameter of a network": (
        "  features: 8",
        "  feature: 8  # <-",
        "network_g.feature",
        "unknown key; accepted: act, features, scale, type",
        "(did you mean features?)",
    ),
    "misspelled parameter of a loss": (
        "      loss_weight: 1.0",
        "      loss_weight: 1.0\n      reductoin: sum  # <-",
        "train.losses[0].reductoin",
        "unknown key",
        "(did you mean reduction?)",
    ),
    "misspelled parameter of a metric": (
        "      better: higher",
        "      better: higher\n      crop_bordr: 4  # <-",
        "val.metrics.config_test_metric.crop_bordr",
        "unknown key",
        "(did you mean crop_border?)",
    ),
    "misspelled parameter of a data set": (
        "    gt_size: 32",
        "    gt_size: 32\n    use_hflips: true  # <-",
        "datasets.train.use_hflips",
        "unknown key",
        "(did you mean use_hflip?)",
    ),
    "misspelled loader key": (
        "    batch_size_per_gpu: 4",
        "    batch_size_per_gpus: 4  # <-",
        "datasets.train.batch_size_per_gpus",
        "unknown key",
        "(did you mean batch_size_per_gpu?)",
    ),
    "misspelled parameter of an optimizer": (
        "    lr: 2e-4",
        "    lrr: 2e-4  # <-",
        "train.optim_g.lrr",
        "unknown key",
        "(did you mean lr?)",
    ),
    "parameter of the wrong type": (
        "  features: 8",
        "  features: many  # <-",
        "network_g.features",
        "found 'many'; accepted: a whole number",
        "",
    ),
    "parameter out of range": (
        "    betas: [0.9, 0.99]",
        "    betas: [0.9, 1.5]  # <-",
        "train.optim_g.betas[1]",
        "found 1.5; accepted: less than 1",
        "",
    ),
    "parameter of unknown choice": (
        "  features: 8",
        "  act: mich  # <-",
        "network_g.act",
        "found 'mich'; accepted: 'relu' or 'mish' (did you mean mish?)",
        "",
    ),
    "metric improving the other way": (
        "      better: higher",
        "      better: lower  # <-",
        "val.metrics.config_test_metric.better",
        "found 'lower'; accepted: 'higher'",
        "",
    ),
    "crop sizes that disagree": (
        "    gt_size: 32",
        "    gt_size: 48  # <-",
        "datasets.train.gt_size",
        "found 48, but lq_size 16 times scale 2 is 32; accepted: sizes that agree",
        "",
    ),
    "crop that the scale does not divide": (
        "    lq_size: 16\n    gt_size: 32",
        "    gt_size: 33  # <-",
        "datasets.train.gt_size",
        "found 33; accepted: a multiple of the scale, 2",
        "",
    ),
    "network of another scale": (
        "  features: 8",
        "  scale: 4  # <-",
        "network_g.scale",
        "found 4, but the file's scale is 2 (line 2); accepted: the same",
        "",
    ),
    "data set of another scale": (
        "    gt_size: 32",
        "    gt_size: 32\n    scale: 4  # <-",
        "datasets.train.scale",
        "found 4, but the file's scale is 2 (line 2); accepted: the same",
        "",
    ),
    "no losses": (
        "  losses:\n    - type: ConfigTestLoss\n      loss_weight: 1.0\n",
        "",
        "train.losses",
        "required key is missing; accepted: a list with at least one loss",
        "train:\n  total",
    ),
    "empty losses": (
        "  losses:\n    - type: ConfigTestLoss\n      loss_weight: 1.0\n",
        "  losses: []  # <-\n",
        "train.losses",
        "found no loss; accepted: at least one loss that has a weight",
        "",
    ),
    "losses of weight 0": (
        "  losses:\n    - type: ConfigTestLoss\n      loss_weight: 1.0\n",
        "  losses: [{type: ConfigTestLoss, loss_weight: 0}]  # <-\n",
        "train.losses",
        "found only losses whose weight is 0 in the whole run; accepted: at least one loss that has a weight",
        "",
    ),
    "label used twice": (
        "      loss_weight: 1.0",
        "      loss_weight: 1.0\n      name: a\n    - {type: ConfigTestLoss, loss_weight: 1.0, name: a}  # <-",
        "train.losses[1].name",
        "found 'a' again, the label of losses[0]; accepted: a label of its own",
        "",
    ),
    "losses written twice": (
        "num_gpu: 0",
        "losses: []  # <-",
        "losses",
        "the same as train.losses in line ",
        "; accepted: one of them",
    ),
    "validation without data": (
        "  val:\n    name: held_out\n    type: ConfigTestDataset\n    dataroot_gt: [datasets/val1, datasets/val2]\n",
        "",
        "val.val_enabled",
        "found true, but there is no data set val; accepted: ",
        "  val_enabled: true",
    ),
    "no metrics": (
        "  metrics:\n    config_test_metric:\n      better: higher\n",
        "",
        "val.metrics",
        "required key is missing, as metrics_enabled is true",
        "val:\n  val_enabled",
    ),
    "overlap as large as the tile": (
        "  val_freq: 100",
        "  val_freq: 100\n  tile_size: 8\n  tile_overlap: 8  # <-",
        "val.tile_overlap",
        "found 8; accepted: less than tile_size, 8",
        "",
    ),
    "name that is no folder": (
        "name: tiny",
        "name: a/b  # <-",
        "name",
        "found 'a/b'; accepted: text that can name a folder",
        "",
    ),
    "duplicate key": (
        "scale: 2",
        "scale: 2\nscale: 2  # <-",
        "scale",
        "written twice, first in line 2; accepted: once",
        "",
    ),
    "duplicate key inside": (
        "  features: 8",
        "  features: 8\n  features: 9  # <-",
        "network_g.features",
        "written twice, first in line 19; accepted: once",
        "",
    ),
    "number that is none": (
        "    lr: 2e-4",
        "    lr: !!float fast  # <-",
        "train.optim_g.lr",
        "found 'fast' tagged !!float; accepted: a number",
        "",
    ),
    "tag that builds objects": (
        "name: tiny",
        "name: !!python/object/apply:os.system ['true']  # <-",
        "name",
        "found the tag !!python/object/apply:os.system; accepted: plain values",
        "",
    ),
    "tab": ("scale: 2", "scale:\n\t2  # <-", "", "YAML syntax error", "indented with spaces, not tabs"),
    "syntax error": (
        "scale: 2",
        "scale: [2  # <-\n",
        "",
        "YAML syntax error while parsing a flow sequence",
        "manual_seed",
    ),
    "colon in a value": (
        "name: tiny",
        "name: tiny: small  # <-",
        "",
        "YAML syntax error mapping values are not allowed here",
        "",
    ),
    "redux feature: teacher": (
        "num_gpu: 0",
        "network_g_teacher: {type: span}  # <-",
        "network_g_teacher",
        "not supported yet; accepted: leaving it out",
        "",
    ),
    "redux feature: mixtures": (
        "  total_iter: 2000",
        "  total_iter: 2000\n  use_moa: true  # <-",
        "train.use_moa",
        "not supported yet; accepted: leaving it out, or false",
        "",
    ),
    "redux feature: video": (
        "    gt_size: 32",
        "    gt_size: 32\n    clip_size: 5  # <-",
        "datasets.train.clip_size",
        "not supported yet; accepted: leaving it out",
        "",
    ),
    "redux feature: path": (
        "num_gpu: 0",
        "path: {pretrain_network_ae: x.pth}  # <-",
        "path.pretrain_network_ae",
        "not supported yet; accepted: leaving it out",
        "",
    ),
    "redux feature: wandb": (
        "  print_freq: 10",
        "  print_freq: 10\n  wandb: {project: mine}  # <-",
        "logger.wandb",
        "not supported yet; accepted: leaving it out",
        "",
    ),
    "redux loss": (
        "    - type: ConfigTestLoss",
        "    - type: LineDistillerLoss  # <-",
        "train.losses[0].type",
        "the loss 'LineDistillerLoss' is not supported yet; accepted: ",
        "",
    ),
    "redux scheduler": (
        "    type: ConfigTestScheduler\n",
        "    type: CyclicLR  # <-\n",
        "train.scheduler.type",
        "the scheduler 'CyclicLR' is not supported yet; accepted: ",
        "",
    ),
    "redux network": (
        "  type: ConfigTestNet\n  features: 8",
        "  type: tscunet  # <-",
        "network_g.type",
        "the network 'tscunet' is not supported yet; accepted: ",
        "",
    ),
    "redux loss in the old form": (
        "  losses:\n    - type: ConfigTestLoss",
        "  topiq_opt:  # <-",
        "train.topiq_opt.type",
        "the loss 'topiqloss' is not supported yet; accepted: ",
        "",
    ),
    "field of the program": (
        "num_gpu: 0",
        "launcher: pytorch  # <-",
        "launcher",
        "set by the program itself; accepted: leaving it out",
        "",
    ),
    "later feature: another kind of data": (
        "num_gpu: 0",
        "input_pixel_format: y  # <-",
        "input_pixel_format",
        "not supported yet; accepted: leaving it out, or rgb",
        "",
    ),
    "a network of another model": (
        "  total_iter: 2000",
        "  total_iter: 2000\n  schedulers: {flow: {type: ConfigTestScheduler, milestones: [1]}}  # <-",
        "train.schedulers.flow",
        "this model has no such network; accepted: net_g (generator, g), net_d (discriminator, d)",
        "",
    ),
    "optimizer written twice": (
        "  total_iter: 2000",
        "  total_iter: 2000\n  optimizers: {generator: {type: configtestoptimizer}}  # <-",
        "train.optimizers.generator",
        "the same as train.optim_g in line 23; accepted: one of them",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_mistake_is_one_line(case: str, mistakes) -> None:
    old, new, key, message, more = CASES[case]
    text = change(old, new)
    if "# <-" in new:
        line = marked_line(text)
    else:
        assert more, "a case without a mark says in which line it is reported"
        line = text[: text.index(more)].count("\n") + 1
        more = ""
    if case == "syntax error":
        line += 2  # YAML notices the open bracket at the next key
        more = ""

    found = mistakes(text)

    assert len(found) == 1, found
    assert FORM.fullmatch(found[0])
    assert found[0].startswith(f"x.yml:{line}: {key}: {message}" if key else f"x.yml:{line}: {message}")
    assert found[0].endswith(more) or more in found[0]


def test_a_scale_that_the_network_lacks_is_reported_at_the_scale(mistakes) -> None:
    text = change("scale: 2", "scale: 8", change("    lq_size: 16\n", ""))

    assert mistakes(text) == ["x.yml:2: network_g.scale: found 8; accepted: at most 4"]


def test_the_good_file_has_no_mistake(mistakes) -> None:
    assert mistakes(GOOD) == []


def test_all_mistakes_are_reported_together_in_the_order_of_the_file(mistakes) -> None:
    text = change("scale: 2\n", "scale: 2\nuse_amp: on\n")
    text = change("    lr: 2e-4", "    lr: -1\n    betta: 1", text)
    text = change("      loss_weight: 1.0", "      loss_weight: 1.0\n    - type: nothing", text)
    text = change("    gt_size: 32", "    gt_size: 30\n    gt_size: 32", text)
    text = change("      better: higher", "      crop_border: wide", text)
    text = change("  val_freq: 100", "", text)

    found = mistakes(text)

    assert [re.match(r"x\.yml:(\d+): ([^:]*):", line).groups() for line in found] == [
        ("3", "use_amp"),
        ("13", "datasets.train.gt_size"),
        ("26", "train.optim_g.lr"),
        ("27", "train.optim_g.betta"),
        ("35", "train.losses[1].loss_weight"),
        ("35", "train.losses[1].type"),
        ("36", "val.val_freq"),
        ("43", "val.metrics.config_test_metric.crop_border"),
    ]


ALIAS_BOMB = b"b0: &b0 [1, 1]\n" + b"".join(
    b"b%d: &b%d [%s]\n" % (level, level, b",".join([b"*b%d" % (level - 1)] * 9)) for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.yml:1: found an empty file; accepted: a file of `key: value` lines"),
        (b"- a\n", "x.yml:1: found a list; accepted: a file of `key: value` lines"),
        (b"name: a\nscale: \xe9\n", "x.yml:2: found the byte 0xe9, which is not UTF-8; accepted: UTF-8 text"),
        (b"name: a\nscale: \x00\n", "x.yml:2: YAML syntax error unacceptable character"),
        (b"a: " + b"[" * 3000, "x.yml:1: values are nested too deeply; accepted: "),
        (b"a: &a [*a]", "x.yml:1: a[0][0][0]"),
        (ALIAS_BOMB, "aliases unfold to too much"),
        (b"a: 1\n---\nb: 2\n", "x.yml:2: YAML syntax error expected a single document"),
    ],
    ids=["empty", "list", "latin-1", "control character", "deep", "recursive", "alias bomb", "two documents"],
)  # fmt: skip
def test_files_that_are_no_option_files(content: bytes, message: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yml").write_bytes(content)

    with pytest.raises(ConfigError) as error:
        load_options("x.yml")

    assert len(str(error.value).splitlines()) == 1
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(
        ConfigError, match=r"gone\.yml: the option file cannot be read: there is no such file; accepted: "
    ) as error:
        load_options(tmp_path / "gone.yml")

    assert error.value.exit_code == 2


def test_nothing_is_written(load, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    load(GOOD)

    assert [path.name for path in tmp_path.iterdir()] == ["x.yml"]
