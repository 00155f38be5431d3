"""A run goes on from its checkpoint as if it had not stopped; names, formats and what is kept."""

from __future__ import annotations

import json
import shutil
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_parts import Counter, Net, Run, files, folders_in, same
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from traiNNer.utils.checkpoint import (
    Checkpoint,
    CheckpointFolders,
    ResumePoint,
    check_networks,
    find_iteration,
    find_state,
    latest_complete,
    read_state,
)
from traiNNer.utils.errors import ConfigError, RunError

OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, amsgrad=True),
    "AdamW": torch.optim.AdamW,
    "AdamW fused": partial(torch.optim.AdamW, fused=True),
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "SGD": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "RMSprop": partial(torch.optim.RMSprop, momentum=0.9, centered=True),
}


def newest(folders: CheckpointFolders) -> ResumePoint:
    point, _ = latest_complete(folders)
    if point is None:
        pytest.fail("no checkpoint found")
    return point


class TestResume:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_7_steps_a_file_and_8_steps_equal_15(self, tmp_path: Path, optimizer: str, channels_last: bool) -> None:
        folders, layout = folders_in(tmp_path), {"channels_last": channels_last}
        straight = Run(folders, OPTIMIZERS[optimizer], **layout)
        straight.step(7)
        straight.checkpoint.save(7)
        straight.step(8)
        resumed = Run(folders, OPTIMIZERS[optimizer], seed=1, **layout)
        assert resumed.checkpoint.load(newest(folders)) == []
        resumed.step(8)
        assert same(resumed.everything(), straight.everything())
        assert resumed.net.head.weight.is_contiguous(memory_format=torch.channels_last) is channels_last

    def test_saving_changes_nothing(self, tmp_path: Path) -> None:
        quiet = Run(folders_in(tmp_path / "a"))
        quiet.step(6)
        quiet_end = quiet.everything()
        saving = Run(folders_in(tmp_path / "b"), save_last_n=1)
        for iteration in range(1, 7):
            saving.step()
            saving.checkpoint.save(iteration)
            saving.checkpoint.save_best("psnr", float(iteration), iteration)
        saving.checkpoint.save_latest()
        assert same(saving.everything(), quiet_end)

    def test_a_moved_run_resumes(self, tmp_path: Path) -> None:
        run = Run(folders_in(tmp_path / "old" / "name"))
        run.step()
        run.checkpoint.save(1)
        shutil.move(tmp_path / "old" / "name", tmp_path / "elsewhere")
        other = Run(folders_in(tmp_path / "elsewhere"), seed=1)
        other.checkpoint.load(newest(folders_in(tmp_path / "elsewhere")))
        assert same(other.everything(), run.everything())

    def test_states_and_weights_in_folders_that_were_moved_apart(self, tmp_path: Path) -> None:
        run = Run(folders_in(tmp_path / "old"))
        run.checkpoint.save(1)
        here = folders_in(tmp_path / "new")
        here.training_states.mkdir(parents=True)
        shutil.move(tmp_path / "old" / "training_states" / "1.state", here.training_states)
        shutil.move(tmp_path / "old" / "models", tmp_path / "m")
        shutil.move(tmp_path / "old" / "resume_models", tmp_path / "r")
        apart = CheckpointFolders(
            models=tmp_path / "m", resume_models=tmp_path / "r", training_states=here.training_states
        )
        assert newest(apart).iteration == 1

    def test_a_network_and_its_optimizer_added_later_start_fresh_and_say_so(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        Run(folders).checkpoint.save(3)
        run, net_d = Run(folders, seed=1), nn.Linear(2, 2)
        run.checkpoint.track_network("net_d", net_d, {}, released=False)
        run.checkpoint.track("optimizer/net_d", torch.optim.SGD(net_d.parameters()), required=True)
        before = net_d.weight.clone()
        lines = run.checkpoint.load(newest(folders))
        assert lines == ["not in the checkpoint, so they start fresh: net_d, optimizer/net_d"]
        assert torch.equal(net_d.weight, before)
        run.checkpoint.save(4)
        assert [name for name in files(tmp_path) if "net_d" in name] == ["resume_models/net_d_4.safetensors"]
        assert Run(folders).checkpoint.load(newest(folders)) == [
            "in the checkpoint, but not in this run: net_d, optimizer/net_d"
        ]

    def test_an_average_added_later_starts_as_a_copy(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        without = Run(folders, ema=False)
        without.step(3)
        without.checkpoint.save(3)
        run = Run(folders, seed=1)
        assert run.checkpoint.load(newest(folders)) == [
            "net_g_ema: not in the checkpoint, it starts as a copy of net_g"
        ]
        assert same(run.ema.state_dict(), without.net.state_dict())

    @pytest.mark.parametrize("spelling", ["net_g", "network_g"])
    def test_ignored_networks_stay_as_they_are(self, tmp_path: Path, spelling: str) -> None:
        folders = folders_in(tmp_path)
        saved = Run(folders)
        saved.step(3)
        saved.checkpoint.save(3)
        run = Run(folders, seed=1)
        before = run.everything()
        lines = run.checkpoint.load(newest(folders), ignore=[spelling])
        after = run.everything()
        assert same(after[:3], before[:3])
        assert not same(after[3:], before[3:])
        assert [line.partition(":")[0] for line in lines] == ["net_g", "net_g_ema"]

    def test_the_random_generators_come_last(self, tmp_path: Path) -> None:
        class Drawing(Counter):
            def load_state_dict(self, state_dict: dict[str, Any]) -> None:
                torch.rand(())

        def make() -> Checkpoint:
            run = Run(folders)
            run.checkpoint.track("drawing", Drawing())
            return run.checkpoint

        folders = folders_in(tmp_path)
        make().save(1)
        expected = torch.rand(3)
        make().load(newest(folders))
        assert torch.equal(torch.rand(3), expected)

    def test_another_thread_count_is_said_once(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        run = Run(folders)
        run.checkpoint.save(1)
        threads = torch.get_num_threads()
        torch.set_num_threads(threads + 1)
        try:
            lines = run.checkpoint.load(newest(folders))
        finally:
            torch.set_num_threads(threads)
        assert len(lines) == 1
        assert lines[0].startswith(f"threads: {threads} when the checkpoint was saved, {threads + 1} now")

    def test_going_back_warns_of_the_newer_ones(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        run = Run(folders)
        for iteration in (9, 10, 100):
            run.checkpoint.save(iteration)
        lines = run.checkpoint.load(find_iteration(folders, 9))
        assert len(lines) == 1
        assert "(10, 100)" in lines[0]


class TestFits:
    def test_another_network_is_refused_with_its_keys_before_anything_changes(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        Run(folders).checkpoint.save(1)
        run = Run(folders, seed=1, features=4)
        run.net.register_buffer("extra", torch.zeros(()))
        del run.net.mask
        before = run.everything()
        with pytest.raises(ConfigError) as refused:
            run.checkpoint.load(newest(folders))
        message = str(refused.value)
        assert "head.weight (8, 3, 3, 3) instead of (4, 3, 3, 3)" in message
        assert "the checkpoint lacks: extra" in message
        assert "the option file's network lacks: mask" in message
        assert "pretrain_network_g" in message
        assert same(run.everything(), before)

    def test_the_network_alone_can_be_compared(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        Run(folders).checkpoint.save(1)
        check_networks(newest(folders), {"net_g": Net()})
        with pytest.raises(ConfigError, match="other shapes"):
            check_networks(newest(folders), {"net_g": Net(4)})
        check_networks(newest(folders), {"net_g": Net(4)}, ignore=["net_g"])
        with pytest.raises(ConfigError, match="found a checkpoint of net_g, net_g_ema; accepted: one of net_flow"):
            check_networks(newest(folders), {"net_flow": Net(4)})

    def test_an_optimizer_of_another_type_starts_fresh_and_says_so(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        saved = Run(folders)
        saved.step()
        saved.checkpoint.save(1)
        run = Run(folders, torch.optim.SGD, seed=1)
        assert run.checkpoint.load(newest(folders)) == [
            "optimizer/net_g starts fresh: it was saved by AdamW and is now SGD"
        ]
        assert run.optimizer.state_dict()["state"] == {}
        run.step()

    def test_an_optimizer_of_other_groups_is_refused_before_anything_changes(self, tmp_path: Path) -> None:
        def optimizer(p: Any, lr: float) -> torch.optim.Optimizer:
            return torch.optim.AdamW([{"params": [next(p)]}, {"params": list(p)}], lr=lr)

        folders, reason = folders_in(tmp_path), "parameter groups"
        saved = Run(folders)
        saved.step()
        saved.checkpoint.save(1)
        run = Run(folders, optimizer, seed=1)
        before = run.everything()
        with pytest.raises(ConfigError, match=reason):
            run.checkpoint.load(newest(folders))
        with pytest.raises(ConfigError, match=reason):
            run.checkpoint.check_fits(newest(folders))
        assert same(run.everything(), before)

    @pytest.mark.parametrize("change", ["version", "content", "type"])
    def test_anything_else_starts_fresh_with_a_notice(self, tmp_path: Path, change: str) -> None:
        def make(version: int, counter: Any) -> Checkpoint:
            checkpoint = Checkpoint(folders)
            checkpoint.track_network("net", nn.Linear(1, 1), {})
            checkpoint.track("counter", counter, version=version)
            return checkpoint

        class Other(Counter):
            pass

        folders = folders_in(tmp_path)
        make(1, Counter({"renamed": 5} if change == "content" else {"count": 5})).save(1)
        counter = (Other if change == "type" else Counter)({"count": 2})
        lines = make(2 if change == "version" else 1, counter).load(newest(folders))
        assert len(lines) == 1
        assert lines[0].startswith("counter starts fresh")
        assert counter.values == {"count": 2}


class TestTracking:
    def test_a_second_name_raises(self, tmp_path: Path) -> None:
        checkpoint = Checkpoint(folders_in(tmp_path))
        checkpoint.track("a", Counter())
        checkpoint.track_network("net", Net(), {})
        for name in ("a", "net"):
            with pytest.raises(ValueError, match=f"{name} is tracked already"):
                checkpoint.track(name, Counter())
            with pytest.raises(ValueError, match=f"{name} is tracked already"):
                checkpoint.track_network(name, Net(), {})

    @pytest.mark.parametrize(
        "value",
        [np.float64(1), np.zeros(1), deque([1]), {1, 2}, Path(), torch.Size([1]), {2.0: 1}, b"", torch.float32],
        ids=repr,
    )
    def test_a_state_that_could_not_be_read_back_is_a_fault_that_names_its_place(
        self, tmp_path: Path, value: Any
    ) -> None:
        checkpoint = Checkpoint(folders_in(tmp_path))
        checkpoint.track("counter", Counter({"list": [0, {"deep": value}]}))
        with pytest.raises(TypeError, match=r"counter\['list'\]\[1\]\['deep'\]"):
            checkpoint.save(1)
        assert files(tmp_path) == []

    def test_plain_states_come_back_as_they_were(self, tmp_path: Path) -> None:
        class Keeper(Counter):
            def load_state_dict(self, state_dict: dict[str, Any]) -> None:
                self.values = state_dict

        big = torch.arange(10_000.0)
        values = {
            "a": [1, 2.5, float("inf"), True, None, "é", 2**80, (0.9, 0.99)],
            3: {"piece": big[5:7], "half": torch.ones(2, dtype=torch.bfloat16), "odd": torch.ones(4, 3).T},
        }
        folders = folders_in(tmp_path)
        checkpoint = Checkpoint(folders)
        checkpoint.track("keeper", Keeper(values))
        path = checkpoint.save(1)
        assert path.stat().st_size < big.numel()  # the piece, not the whole
        loaded = Keeper({})
        other = Checkpoint(folders)
        other.track("keeper", loaded)
        other.load(newest(folders))
        assert same(loaded.values, values)

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path: Path) -> None:
        run = Run(folders_in(tmp_path))
        for value in ("nan", "inf", "-inf"):
            with torch.no_grad():
                run.net.norm.running_mean[3] = float(value)
            for save in (
                partial(run.checkpoint.save, 1),
                partial(run.checkpoint.save, 1, crash=True),
                run.checkpoint.save_latest,
            ):
                with pytest.raises(RunError, match=r"net_g is not saved.*norm\.running_mean"):
                    save()
        with torch.no_grad():
            run.ema.scale[0] = float("nan")
        with pytest.raises(RunError, match="net_g_ema"):
            run.checkpoint.save_best("psnr", 1.0, 1)
        assert files(tmp_path) == []


class TestFiles:
    @pytest.mark.parametrize("weights_format", ["safetensors", "pth"])
    def test_names(self, tmp_path: Path, weights_format: Any) -> None:
        Run(folders_in(tmp_path), weights_format=weights_format).checkpoint.save(20)
        copies = ["net_g_20"] if weights_format == "safetensors" else ["net_g_20", "net_g_ema_20"]
        assert files(tmp_path) == [
            f"models/net_g_20.{weights_format}",
            f"models/net_g_ema_20.{weights_format}",
            *(f"resume_models/{name}.safetensors" for name in copies),
            "training_states/20.state",
        ]

    @pytest.mark.parametrize("weights_format", ["safetensors", "pth"])
    @pytest.mark.parametrize("shared", ["models and resume_models", "all"])
    def test_one_folder_for_several_kinds(self, tmp_path: Path, weights_format: Any, shared: str) -> None:
        models = tmp_path / "here"
        folders = CheckpointFolders(
            models=models, resume_models=tmp_path / "there" / ".." / "here",
            training_states=models if shared == "all" else tmp_path / "states",
        )  # fmt: skip
        (tmp_path / "there").mkdir()
        run = Run(folders, weights_format=weights_format, save_last_n=1)
        for iteration in (1, 2):
            run.step()
            run.checkpoint.save(iteration)
        weights = [name for name in files(tmp_path) if not name.endswith(".state")]
        both = [f"here/{name}_2.{kind}" for name in ("net_g", "net_g_ema") for kind in ("pth", "safetensors")]
        assert weights == (both if weights_format == "pth" else [name for name in both if "safe" in name])
        named = [entry["name"] for entry in read_state(newest(folders).path)["files"]]
        assert sorted(named) == sorted(Path(name).name for name in weights)
        other = Run(folders, seed=1)
        other.checkpoint.load(newest(folders))
        assert same(other.everything(), run.everything())

    def test_weights_load_elsewhere_and_carry_their_metadata(self, tmp_path: Path) -> None:
        run = Run(folders_in(tmp_path), channels_last=True)
        run.step()
        run.checkpoint.save(1)
        expected = dict(run.net.state_dict())
        for folder in ("models", "resume_models"):
            path = tmp_path / folder / "net_g_1.safetensors"
            assert same(load_file(path), {key: expected[key] for key in load_file(path)})
            assert load_file(path).keys() == expected.keys()
            with safe_open(path, "pt") as opened:
                assert opened.metadata() == {"iteration": "1"}

    def test_pth_has_the_keys_that_other_tools_read(self, tmp_path: Path) -> None:
        run = Run(folders_in(tmp_path), weights_format="pth")
        run.checkpoint.save(1)
        for name, key, net in (("net_g", "params", run.net), ("net_g_ema", "params_ema", run.ema)):
            content = torch.load(tmp_path / "models" / f"{name}_1.pth", weights_only=True)
            assert list(content) == [key]
            assert same(content[key], dict(net.state_dict()))

    def test_the_state_names_the_others_and_holds_the_options(self, tmp_path: Path) -> None:
        path = Run(folders_in(tmp_path)).checkpoint.save(1, options_text="scale: 2")
        state = torch.load(path, weights_only=True)
        assert state["options"] == "scale: 2"
        assert state["format_version"] == 1
        assert state["environment"]["torch"] == torch.__version__
        named = {(tmp_path / "training_states" / entry["path"]).resolve() for entry in state["files"]}
        assert named == {*(tmp_path / "models").iterdir(), *(tmp_path / "resume_models").iterdir()}
        assert {"net_g", "net_g_ema"} == {entry["network"] for entry in state["files"] if entry["resume"]}

    def test_the_best_are_those_that_were_measured(self, tmp_path: Path) -> None:
        run = Run(folders_in(tmp_path))
        run.step(2)
        path = run.checkpoint.save_best("val_2/psnr", 31.5, 2)
        assert path == tmp_path / "models" / "net_g_best_val_2_psnr.safetensors"
        assert same(load_file(path)["head.weight"], run.ema.head.weight.data)
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        digest = record.pop("sha256")
        assert len(digest) == 64
        assert record == {
            "metric": "val_2/psnr", "value": 31.5, "iteration": 2, "weights": "net_g_ema", "file": path.name,
        }  # fmt: skip

    def test_the_latest_names(self, tmp_path: Path) -> None:
        run = Run(folders_in(tmp_path))
        run.checkpoint.save_latest()
        assert files(tmp_path) == ["models/net_g_ema_latest.safetensors", "models/net_g_latest.safetensors"]


class TestKeeping:
    def test_the_last_n_of_this_run_are_kept_by_number(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        foreign = ["models/net_g_1.safetensors", "models/my_net_g_8.safetensors", "training_states/7.state"]
        for name in foreign:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        run = Run(folders, save_last_n=2)
        run.checkpoint.save_best("psnr", 1.0, 8)
        run.checkpoint.save(9, crash=True)
        kept = {*files(tmp_path)}
        for iteration in (8, 9, 10, 100):
            run.checkpoint.save(iteration)
        assert {name for name in files(tmp_path) if name.endswith(("10.state", "100.state"))} == {
            "training_states/10.state", "training_states/100.state",
        }  # fmt: skip
        new = {*files(tmp_path)} - kept
        assert kept <= {*files(tmp_path)}
        assert {name.rpartition("_")[2].partition(".")[0] for name in new if "state" not in name} == {"10", "100"}

    def test_a_resumed_run_removes_its_own_and_no_others(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path / "mine")
        first = Run(folders)
        for iteration in (1, 2, 3):
            first.checkpoint.save(iteration)
        resumed = Run(folders, save_last_n=2)
        resumed.checkpoint.load(newest(folders))
        resumed.checkpoint.save(4)
        assert [path.name for path in sorted(folders.training_states.iterdir())] == ["3.state", "4.state"]

    def test_a_run_that_starts_from_anothers_state_removes_nothing_of_it(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        first = Run(folders)
        for iteration in (1, 2, 3):
            first.checkpoint.save(iteration)
        before = files(tmp_path)
        own = replace(folders, training_states=tmp_path / "own")
        branch = Run(own, save_last_n=1)
        branch.checkpoint.load(find_state(folders.training_states / "3.state", own))
        branch.checkpoint.save(4)
        assert set(before) < set(files(tmp_path))

    def test_a_release_file_that_the_user_took_away_does_not_matter(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        run = Run(folders, save_last_n=1)
        run.checkpoint.save(1)
        (folders.models / "net_g_1.safetensors").unlink()
        assert newest(folders).iteration == 1
        run.checkpoint.save(2)
        assert not [name for name in files(tmp_path) if "1" in name]


class TestFinding:
    def test_the_newest_is_chosen_by_number(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        run = Run(folders)
        for iteration in (10_000, 9_000):
            run.checkpoint.save(iteration)
        assert newest(folders).iteration == 10_000
        assert find_iteration(folders, 9_000).iteration == 9_000

    def test_a_crash_save_is_taken_only_for_want_of_a_better_one(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        run = Run(folders)
        crash = run.checkpoint.save(20, crash=True)
        assert newest(folders).path == crash
        lines = run.checkpoint.load(newest(folders))
        assert lines == ["20_crash.state was saved after an error, perhaps in the middle of an iteration"]
        run.checkpoint.save(10)
        point, passed_over = latest_complete(folders)
        assert point is not None
        assert point.iteration == 10
        assert len(passed_over) == 1
        assert str(crash) in passed_over[0]
        assert run.checkpoint.load(point) == passed_over
        assert find_state(crash, folders).crash

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert latest_complete(folders_in(tmp_path)) == (None, [])
        with pytest.raises(ConfigError, match="this run has no checkpoint"):
            find_iteration(folders_in(tmp_path), 5)

    def test_an_iteration_that_was_not_saved(self, tmp_path: Path) -> None:
        run = Run(folders_in(tmp_path))
        for iteration in (100, 20):
            run.checkpoint.save(iteration)
        with pytest.raises(ConfigError, match=r"found 30.*the saved iterations: 20, 100"):
            find_iteration(folders_in(tmp_path), 30)

    def test_one_object_of_it_can_be_read(self, tmp_path: Path) -> None:
        folders = folders_in(tmp_path)
        run = Run(folders)
        run.step(3)
        run.checkpoint.save(3)
        assert newest(folders).object_state("counter") == {"count": 3}
        assert newest(folders).object_state("absent") is None

    def test_a_newer_format_is_refused(self, tmp_path: Path) -> None:
        path = Run(folders_in(tmp_path)).checkpoint.save(1)
        torch.save({**read_state(path), "format_version": 2}, path)
        with pytest.raises(ConfigError, match=r"found format 2, .*accepted: format 1 or older"):
            read_state(path)
