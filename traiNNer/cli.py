"""The command line of train.py, and how a program ends: an exit code, and a message instead of a traceback."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traiNNer.utils.errors import ConfigError, TraiNNerError
from traiNNer.utils.logging import close_logging

if TYPE_CHECKING:
    from traiNNer.utils.dist import Launcher  # imports torch, which --help does not need


TELLING_SECONDS = 10
"""So long other ranks wait for rank 0 to write the mistakes that all of them found."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What the command line asked for."""

    option_file: Path
    check: bool = False
    find_lr: bool = False
    resume: int | None = None
    optim_sched_config: Path | None = None
    """A file whose optimizers and schedules replace those of the networks it names."""
    preserve_lr: bool = False
    """A resume keeps the checkpoint's learning rates and schedules."""
    launcher: Launcher = "none"
    overrides: dict[str, Any] = field(default_factory=dict)
    """Top-level options that the command line sets: name, manual_seed, auto_resume, debug."""
    command: str = ""
    """The command line without its resume flags, for the line that tells how to resume."""


def parse_train(argv: Sequence[str]) -> TrainArguments:
    """Read train.py's command line; wrong use ends with exit code 2, as argparse does it."""
    parser = _train_parser()
    found = parser.parse_args(argv)
    if (found.opt is None) == (found.file is None):
        parser.error("give the option file once: train.py -opt FILE, or train.py FILE")
    overrides = {
        "name": found.name,
        "manual_seed": found.manual_seed,
        "auto_resume": found.auto_resume,
        "debug": found.debug,
    }
    return TrainArguments(
        option_file=found.opt or found.file,
        check=found.check,
        find_lr=found.find_lr,
        resume=found.resume,
        optim_sched_config=found.optim_sched_config,
        preserve_lr=found.preserve_lr,
        launcher=found.launcher,
        overrides={key: value for key, value in overrides.items() if value is not None and value is not False},
        command=_command_without_resume(argv),
    )


def _train_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py",
        allow_abbrev=False,
        description="Train a super-resolution network as an option file says.",
        epilog="Example: python train.py -opt options/train/ParagonSR2/quickstart.yml",
    )

    def add(*names: str, text: str, example: str, **keywords: Any) -> None:
        parser.add_argument(*names, help=f"{text} Example: {example}", **keywords)

    file = {"type": Path, "metavar": "FILE"}
    add("file", text="Option file (YAML); the same as -opt FILE.", example="train.py my.yml", nargs="?", **file)
    add("-opt", "--opt", text="Option file (YAML).", example="-opt options/train/ParagonSR2/quickstart.yml", **file)
    text = "Go on from the newest complete checkpoint of this run, if there is one."
    add("--auto_resume", text=text, example="train.py my.yml --auto_resume", action="store_true")
    text = "Go on from the checkpoint of this iteration."
    add("--resume", text=text, example="--resume 20000", type=_iteration, metavar="ITER")
    text = "Keep the learning rates and schedules of the checkpoint, whatever the option file says now."
    add("--preserve_lr", text=text, example="train.py my.yml --auto_resume --preserve_lr", action="store_true")
    text = "JSON or YAML file with optimizers and schedulers that replace those of the networks it names."
    add("--optim_sched_config", text=text, example="--optim_sched_config adamw_cosine.json", **file)
    add("--name", text="Name of the run, instead of the file's.", example="--name 2x_try2")
    text = "Seed of everything random, instead of the file's."
    add("--manual_seed", text=text, example="--manual_seed 7", type=int, metavar="SEED")
    text = "A run named debug_NAME that logs every iteration, and validates and saves every 8."
    add("--debug", text=text, example="train.py my.yml --debug", action="store_true")
    text = "What started this process, where there are several; torchrun is noticed without it."
    example = "torchrun --nproc_per_node=2 train.py my.yml --launcher pytorch"
    add("--launcher", text=text, example=example, choices=("none", "pytorch", "slurm"), default="none")
    text = "Check the file, its images and its weights, print the resolved run, and stop."
    add("--check", text=text, example="train.py my.yml --check", action="store_true")
    text = "Test 100 learning rates of net_g instead of training, plot the loss over them, and suggest one."
    add("--find_lr", text=text, example="train.py my.yml --find_lr", action="store_true")
    return parser


def _iteration(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: an iteration, a whole number from 1")
    return int(text)


def _command_without_resume(argv: Sequence[str]) -> str:
    kept: list[str] = []
    skip = False
    for word in argv:
        if skip or word == "--auto_resume" or word.startswith("--resume="):
            skip = False
        elif word == "--resume":
            skip = True
        else:
            kept.append(f'"{word}"' if " " in word else word)
    return "python train.py " + " ".join(kept)


def ending_with_message(program: Callable[[], int]) -> int:
    """Run a program; what a user can cause becomes one message on stderr and the error's exit code.

    Of several processes only the first writes mistakes in the options: they all find the same.
    """
    # before torch is imported: threads that spin while they wait take 20 times as long on cores that others use too
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what a Windows pipe cannot
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return program()
    except TraiNNerError as error:
        rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
        if rank == 0 or not isinstance(error, ConfigError):
            sys.stderr.write(f"rank {rank}: {error}\n" if rank else f"{error}\n")
        else:
            time.sleep(TELLING_SECONDS)  # torchrun stops every rank when one leaves, and rank 0 has yet to write
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    finally:
        close_logging()
