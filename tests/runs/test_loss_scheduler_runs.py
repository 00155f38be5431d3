"""`train.loss_scheduler` in real runs: decisions, what they do to the weights, resumes, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scripts.plot_loss_scheduler import read_scalars
from traiNNer.losses.flexible_loss_scheduler import FlexibleLossScheduler, SchedulerParams

Run = Callable[..., int]

EAGER = {
    "patience": 1,
    "min_delta": 1000.0,  # nothing is an improvement
    "threshold_mode": "abs",
    "min_observations_before_adapt": 0,
    "warmup_observations": 0,
    "transition_step": 0.25,
    "adaptive_step": False,
}
MOVE = {"source_loss": "l1loss", "target_loss": "mseloss", **EAGER}
"""The first observation is the best; each of the four after it moves a quarter of the way."""


@pytest.fixture
def moving(options: dict[str, Any]) -> dict[str, Any]:
    """A validation and a log line in each of 8 iterations."""
    options["train"] |= {
        "losses": [{"type": "l1loss", "loss_weight": 2.0}, {"type": "mseloss", "loss_weight": 10.0}],
        "loss_scheduler": dict(MOVE),
    }
    options["val"] |= {"val_freq": 1, "metrics": {"psnr": {"type": "psnr"}}}
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 8, "use_tb_logger": True}
    return options


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """By the script's reader: TensorBoard's own overlooks a file of the same second whose number sorts before."""
    return read_scalars(folder / "tb_logger")


def log_of(folder: Path) -> str:
    return (folder / "train.log").read_text(encoding="utf-8")


def moves(folder: Path) -> list[str]:
    return re.findall(r"\[iter \d+\] loss scheduler.*", log_of(folder))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "resume_models" / "net_g_8.safetensors")


def equal(one: Path, two: Path) -> bool:
    return all(torch.equal(value, weights(two)[key]) for key, value in weights(one).items())


def test_weights_move_and_everything_says_so(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    assert run_training(moving) == 0
    folder = tmp_path / "experiments" / "tiny"
    seen, log = curves(folder), log_of(folder)
    expected = {at: min(0.25 * (at - 1), 1.0) for at in range(1, 9)}
    assert seen["loss_scheduler/progress"] == pytest.approx(expected)
    assert seen["loss_scheduler/weight_source"] == pytest.approx({at: 1 - 0.7 * q for at, q in expected.items()})
    assert seen["loss_scheduler/weight_target"] == pytest.approx({at: 0.7 * q for at, q in expected.items()})
    # a validation's decision holds from the next iteration on, on top of the entry's own weight
    assert seen["loss_weight/l1loss"] == pytest.approx(
        {1: 2.0, **{at + 1: 2 * (1 - 0.7 * q) for at, q in expected.items() if at < 8}}
    )
    assert seen["loss_weight/mseloss"] == pytest.approx({1: 0, **{at + 1: 7 * expected[at] for at in range(1, 8)}})
    assert sorted(seen["loss/mseloss"]) == list(range(3, 9))  # at weight 0 it is not computed
    assert seen["loss_scheduler/monitored"].keys() == expected.keys()
    first = r"\[iter 2\] loss scheduler: plateau in target_loss \(0\.\d+ for 1 observations\): progress 0\.25, "
    assert re.search(first + r"source 0\.825, target 0\.175", log)
    assert len(moves(folder)) == 4
    start = "loss scheduler: from l1loss to mseloss, multipliers 1 and 0 become 0.3 and 0.7 on plateau of target_loss"
    assert start in log


@pytest.mark.parametrize("at", [1, 3, 4, 7])
def test_a_resume_decides_as_a_straight_run(moving: dict[str, Any], run_training: Run, tmp_path: Path, at: int) -> None:
    moving["train"]["loss_scheduler"] |= {"patience": 2, "max_consecutive_adaptations": 1, "monitor_metric": "val_loss"}
    assert run_training(moving | {"name": "straight"}) == 0
    for total_iter in (at, 8):
        moving["train"] |= {"total_iter": total_iter, "scheduler": {"type": "CosineAnnealingLR", "T_max": 8}}
        assert run_training(moving | {"name": "parts"}, "--auto_resume") == 0
    straight, parts = (tmp_path / "experiments" / name for name in ("straight", "parts"))
    assert equal(straight, parts)
    assert moves(straight) == moves(parts)
    assert moves(straight)
    names = ["progress", "weight_source", "weight_target", "monitored"]
    one, two = curves(straight), curves(parts)
    assert [one[f"loss_scheduler/{name}"] for name in names] == [two[f"loss_scheduler/{name}"] for name in names]


def test_a_checkpoint_without_one_resumes_into_a_run_with_one_and_the_reverse(
    moving: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    scheduler = moving["train"].pop("loss_scheduler")
    folder = tmp_path / "experiments" / "tiny"
    for total_iter, section in ((2, None), (5, scheduler), (8, None)):
        moving["train"] |= {"total_iter": total_iter, "loss_scheduler": section}
        assert run_training(moving, "--auto_resume") == 0
    seen = curves(folder)
    assert seen["loss_scheduler/progress"] == pytest.approx({3: 0.0, 4: 0.25, 5: 0.5})
    assert seen["loss_weight/mseloss"] == pytest.approx({1: 10, 2: 10, 3: 0, 4: 0, 5: 1.75, 6: 10, 7: 10, 8: 10})
    assert "not in the checkpoint, so they start fresh: loss_scheduler" in log_of(folder)
    assert "in the checkpoint, but not in this run: loss_scheduler" in log_of(folder)
    changes = re.findall(r"changed option: train\.loss_scheduler.*", log_of(folder))
    assert changes == [
        "changed option: train.loss_scheduler: absent by the checkpoint's options, a section by the current ones",
        "changed option: train.loss_scheduler: a section by the checkpoint's options, absent by the current ones",
    ]


def test_off_is_as_if_it_were_not_there(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    moving["train"]["loss_scheduler"]["enabled"] = False
    assert run_training(moving | {"name": "off"}) == 0
    del moving["train"]["loss_scheduler"]
    assert run_training(moving | {"name": "without"}) == 0
    off, without = (tmp_path / "experiments" / name for name in ("off", "without"))
    assert equal(off, without)
    assert not moves(off)
    assert curves(off)["loss_weight/mseloss"] == curves(without)["loss_weight/mseloss"]


def test_two_of_them_compose_with_the_losses_own_schedules(
    moving: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    moving["train"]["losses"] += [
        {"type": "charbonnierloss", "loss_weight": 1.0, "target_weight": 9.0, "target_iter": 8},
        {"type": "tvloss", "loss_weight": 1.0, "disable_after": 5},
        {"type": "huberloss", "loss_weight": 1.0},
    ]
    second = {
        "source_loss": ["charbonnierloss", "tvloss"],
        "target_loss": "huberloss",
        "initial_weight_target": 0.5,
        "adaptation_trigger": "iteration",
        "schedule": [[4, 0.0], [6, 1.0]],
        "transition_schedule": "cosine",
    }
    moving["train"]["loss_scheduler"] = [MOVE | {"monitor_metric": "psnr", "min_delta": 100.0}, second]
    assert run_training(moving) == 0
    folder = tmp_path / "experiments" / "tiny"
    seen = curves(folder)
    assert seen["loss_scheduler/progress"][8] == 1.0
    assert seen["loss_scheduler_2/progress"] == pytest.approx({at: min(max((at - 4) / 2, 0), 1) for at in range(1, 9)})
    source = {at: [1, 1, 1, 1, 0.78, 0.7, 0.7, 0.7][at - 1] for at in range(1, 9)}  # 0.3 of 1 is 0.45 of 1.5
    assert seen["loss_weight/charbonnierloss"] == pytest.approx({at: source[at] * (1 + at) for at in range(1, 9)})
    assert seen["loss_weight/tvloss"] == pytest.approx({at: source[at] if at <= 5 else 0.0 for at in range(1, 9)})
    assert seen["loss_weight/huberloss"] == pytest.approx({at: 1.5 - source[at] for at in range(1, 9)})
    assert "[iter 6] loss scheduler 2: iteration 6: progress 1.00, source 0.700, target 0.800" in log_of(folder)
    assert log_of(folder).count("loss scheduler 2: iteration") == 2
    line = "0.3 and 0.7 are reached as 0.7 and 0.8: their sum stays 1.5, and the target's is at most 0.8"
    assert line in log_of(folder)


def test_old_names_are_read(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    scheduler = moving["train"].pop("loss_scheduler")
    del scheduler["min_observations_before_adapt"], scheduler["warmup_observations"]
    moving["loss_scheduler"] = scheduler | {"min_epochs_before_adapt": 4, "warmup_epochs": 2}
    assert run_training(moving) == 0
    assert curves(tmp_path / "experiments" / "tiny")["loss_scheduler/progress"] == pytest.approx(
        {1: 0, 2: 0, 3: 0, 4: 0, 5: 0.25, 6: 0.5, 7: 0.75, 8: 1.0}
    )


def test_a_move_that_the_run_is_too_short_for_is_announced(
    moving: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    moving["train"]["loss_scheduler"] = {"source_loss": "l1loss", "target_loss": "mseloss"}
    assert run_training(moving) == 0
    folder = tmp_path / "experiments" / "tiny"
    params = SchedulerParams(**moving["train"]["loss_scheduler"], max_consecutive_adaptations=99)
    scheduler = FlexibleLossScheduler(params)
    least = next(count for count in range(1, 200) if scheduler.step({"mseloss": 1.0}) and scheduler.progress == 1)
    line = f"the whole move takes at least {least} validations ({least} iterations), this run has 8"
    assert line in log_of(folder)


MISTAKES = [
    (
        {"source_loss": "l1los"},
        "source_loss: found l1los; accepted: l1loss, mseloss, the labels of train.losses (did",
    ),
    ({"target_loss": "l1loss"}, "target_loss: found 'l1loss'; accepted: another label than those of source_loss"),
    ({"patiense": 3}, "patiense: unknown key; accepted: adaptation_trigger, "),
    ({"patience": 0}, "patience: found 0; accepted: "),
    ({"monitor_metric": "val/snr"}, "monitor_metric: found val/snr, which no validation computes; accepted: target_l"),
    ({"adaptation_trigger": "iteration"}, "schedule: "),
    ({"max_weight_target": 0.5, "initial_weight_target": 0.6}, "max_weight_target: found 0.5; accepted: at least init"),
    ({"initial_weight_source": 0.0}, "initial_weight_target: found 0.0; accepted: more than 0, as initial_weight_so"),
    (
        {"static_components": {"mseloss": 1.0}},
        "static_components: found mseloss, which train.loss_scheduler.target_loss has",
    ),
    ({"source_components": {"l1loss/low": True}}, "source_components: found l1loss/low, but l1loss has no components"),
    ({"source_components": {"recMSE": True}}, "source_components: found recMSE; accepted: these with a loss of type "),
    ({"source_components": {}}, "source_components: found a section; accepted: LABEL: true, or LABEL/COMPONENT: true"),
    ({"source_components": {"l1loss/": True}}, "source_components: found l1loss/; accepted: l1loss, or l1loss/COMP"),
    ({"source_loss": 3}, "source_loss: found 3; accepted: a label, or a list of labels"),
    ({"warmup_epochs": 1}, "warmup_epochs: the same as train.loss_scheduler.warmup_observations in line"),
    ({"schedule": [[4, 1.0], [3, 1.0]]}, "schedule: found "),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[message.split(":")[0] for _, message in MISTAKES])
def test_mistakes_are_told_with_file_and_line(
    moving: dict[str, Any],
    run_training: Run,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    moving["train"]["loss_scheduler"] |= changes
    assert run_training(moving) == 2
    told = capfd.readouterr().err
    assert re.search(rf"options\.yml:\d+: train\.loss_scheduler\.{re.escape(message)}", told), told
    assert "Traceback" not in told
    assert not (tmp_path / "experiments" / "tiny").exists()


def test_without_validation_only_iterations_can_move_it(
    moving: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    moving["val"]["val_enabled"] = False
    assert run_training(moving) == 2
    assert "adaptation_trigger: found plateau, but the run has no validation" in capfd.readouterr().err
    moving["train"]["loss_scheduler"] = {
        "source_loss": "l1loss",
        "target_loss": "mseloss",
        "adaptation_trigger": "iteration",
        "schedule": [[2, 0.0], [6, 1.0]],
        "patience": 3,
    }
    assert run_training(moving) == 0
    folder = tmp_path / "experiments" / "tiny"
    progress = {at: min(max((at - 2) / 4, 0), 1) for at in range(1, 9)}
    assert curves(folder)["loss_weight/mseloss"] == pytest.approx({at: 7 * q for at, q in progress.items()})
    assert "train.loss_scheduler.patience: has no effect with adaptation_trigger: iteration" in log_of(folder)


def test_a_loss_that_validations_cannot_compute_is_not_watched(
    moving: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    moving["network_d"] = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}
    moving["train"]["optim_d"] = {"type": "AdamW", "lr": 1e-3}
    moving["train"]["losses"][1] = {"type": "ganloss", "loss_weight": 0.1}
    moving["train"]["loss_scheduler"]["target_loss"] = "ganloss"
    assert run_training(moving) == 2
    assert (
        "found target_loss, but a validation has output and GT alone, and ganloss needs more" in capfd.readouterr().err
    )
    moving["train"]["loss_scheduler"] |= {"monitor_metric": "source_loss"}
    assert run_training(moving) == 0
    seen = curves(tmp_path / "experiments" / "tiny")
    assert seen["loss_weight/ganloss"] == pytest.approx(
        {1: 0, 2: 0, 3: 0.0175, 4: 0.035, 5: 0.0525} | dict.fromkeys((6, 7, 8), 0.07)
    )
    assert sorted(seen["grad_norm/net_d"]) == list(range(1, 9))  # net_d learns by its own schedule


def test_a_component_of_a_loss_moves_alone(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    perceptual = {"type": "perceptualloss", "loss_weight": 2.0, "layer_weights": {"conv1_2": 1.0}, "pretrained": False}
    scheduler = moving["train"]["loss_scheduler"]
    scheduler |= {"target_components": {"perceptualloss/style": True}}
    scheduler["target_loss"] = "perceptualloss"
    moving["train"]["total_iter"] = 2  # no adaptation has an effect yet
    moving["logger"]["save_checkpoint_freq"] = 2
    trained: dict[str, dict[str, torch.Tensor]] = {}
    for name, style, start in (("nothing", 1.0, 0.0), ("everything", 1.0, 0.5), ("without", 0.0, 0.0)):
        moving["train"]["losses"][1] = perceptual | {"style_weight": style}
        scheduler["initial_weight_target"] = start
        if name == "without":
            del moving["train"]["loss_scheduler"]
        assert run_training(moving | {"name": name}) == 0
        trained[name] = load_file(tmp_path / "experiments" / name / "resume_models" / "net_g_2.safetensors")
    assert all(torch.equal(value, trained["without"][key]) for key, value in trained["nothing"].items())
    assert not all(torch.equal(value, trained["without"][key]) for key, value in trained["everything"].items())
    seen = curves(tmp_path / "experiments" / "everything")
    assert seen["loss_weight/perceptualloss"] == {1: 2.0, 2: 2.0}
    assert seen["loss_weight/perceptualloss_style"] == {1: 1.0, 2: 1.0}


def test_a_state_belongs_to_the_losses_it_moved(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    """In another order in the file, or without the other, a scheduler goes on where it was; a new pair starts at 0."""
    moving["train"]["losses"] += [
        {"type": "charbonnierloss", "loss_weight": 1.0},
        {"type": "huberloss", "loss_weight": 1.0},
        {"type": "tvloss", "loss_weight": 1.0},
    ]
    late = MOVE | {"source_loss": "charbonnierloss", "target_loss": "huberloss", "min_observations_before_adapt": 3}
    other = MOVE | {"source_loss": "charbonnierloss", "target_loss": "tvloss", "monitor_metric": "val_loss"}
    schedulers = ([MOVE, late], [late, MOVE], [late], [MOVE, other])
    for total_iter, section in zip((4, 5, 6, 7), schedulers, strict=True):
        moving["train"] |= {"total_iter": total_iter, "loss_scheduler": section}
        assert run_training(moving, "--auto_resume") == 0
    seen = curves(tmp_path / "experiments" / "tiny")
    assert seen["loss_scheduler/progress"] == pytest.approx({1: 0, 2: 0.25, 3: 0.5, 4: 0.75, 5: 0.5, 6: 0.75, 7: 0})
    assert seen["loss_scheduler_2/progress"] == pytest.approx({1: 0, 2: 0, 3: 0, 4: 0.25, 5: 1.0, 7: 0})
    log = log_of(tmp_path / "experiments" / "tiny")
    assert "not in the checkpoint, so they start fresh: loss_scheduler/charbonnierloss to tvloss" in log


def test_validations_without_gt_measure_nothing(
    moving: dict[str, Any], run_training: Run, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(photos / "val" / "lq")
    without = {"name": "no GT", "type": "SingleImageDataset", "dataroot_lq": folder, "num_worker_per_gpu": 0}
    paired = moving["datasets"]["val"]
    moving["datasets"]["val"] = without
    assert run_training(moving) == 2
    assert "adaptation_trigger: found plateau, but the run has no validation that measures" in capfd.readouterr().err
    moving["datasets"]["val_2"] = paired
    moving["train"]["loss_scheduler"]["monitor_metric"] = "val_loss"
    assert run_training(moving) == 2
    assert "monitor_metric: found val_loss, which no validation computes; accepted: " in capfd.readouterr().err
    moving["train"]["loss_scheduler"]["monitor_metric"] = "val_2/psnr"
    assert run_training(moving) == 0


def test_losses_without_a_base_weight_make_no_val_loss(
    moving: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    moving["train"]["losses"] = [
        {"type": name, "loss_weight": 0.0, "target_weight": 1.0, "target_iter": 4} for name in ("l1loss", "mseloss")
    ]
    moving["train"]["loss_scheduler"]["monitor_metric"] = "val_loss"
    assert run_training(moving) == 2
    assert "found val_loss, which no validation computes" in capfd.readouterr().err
    moving["train"]["loss_scheduler"]["monitor_metric"] = "target_loss"
    assert run_training(moving) == 0


def test_a_loss_may_be_called_as_a_metric(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    moving["train"]["losses"][0]["name"] = "target_loss"
    moving["train"]["losses"][1]["name"] = "psnr"
    scheduler = moving["train"]["loss_scheduler"]
    scheduler |= {"source_loss": "target_loss", "target_loss": "psnr", "use_ema": False}
    for monitor, low, high in (("psnr", 5.0, 20.0), ("target_loss", 0.0, 0.3)):
        scheduler["monitor_metric"] = monitor
        assert run_training(moving | {"name": monitor}) == 0
        values = curves(tmp_path / "experiments" / monitor)["loss_scheduler/monitored"].values()
        assert all(low < value < high for value in values)


def test_a_target_that_ends_is_announced(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    moving["train"]["losses"][1] |= {"start_iter": 2, "disable_after": 6}
    assert run_training(moving) == 0
    line = "mseloss acts in iterations 2 to 6 alone; outside of them a move only takes weight from l1loss"
    assert line in log_of(tmp_path / "experiments" / "tiny")


def test_a_schedule_in_percent(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    moving["train"]["loss_scheduler"] = {
        "source_loss": "l1loss",
        "target_loss": "mseloss",
        "adaptation_trigger": "iteration",
        "schedule": [["25%", 0.0], ["75%", 1.0]],
    }
    moving["val"]["val_enabled"] = False
    assert run_training(moving) == 0
    progress = curves(tmp_path / "experiments" / "tiny")["loss_scheduler/progress"]
    assert progress == pytest.approx({at: min(max((at - 2) / 4, 0), 1) for at in range(1, 9)})
