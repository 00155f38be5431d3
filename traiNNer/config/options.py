"""The top level of an option file, and what can be asked of it once it is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, PrivateAttr

from traiNNer.config.components import ReadOnly
from traiNNer.config.sections import (
    DatasetOptions,
    LogOptions,
    Network,
    PathOptions,
    Section,
    Switch,
    TrainOptions,
    ValOptions,
    option,
)
from traiNNer.config.tree import Node, locate, problem_at
from traiNNer.utils.errors import Problem

CompileMode: TypeAlias = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


def _folder_name(name: str) -> str:
    """Refuse what cannot name a folder on every system, for the run's folder is named so."""
    if not name.strip(". ") or name[-1] in ". " or re.search(r'[<>:"/\\|?*\x00-\x1f]', name):
        raise ValueError('text that can name a folder, without / \\ : * ? " < > | and not ending in a dot or space')
    return name


class Options(Section):
    """All options of a run, resolved: the file's values, the command line's, and defaults. It does not change."""

    name: Annotated[str, AfterValidator(_folder_name)] = option(
        unit="label", text="Name of the run; its folder is named so. With debug in it, the run is a debug run."
    )
    scale: int = option(unit="factor", ge=1, text="Enlargement of the images.")
    num_gpu: Literal["auto"] | Annotated[int, Field(ge=0)] = option(
        "auto", unit="devices", text="Accelerators to use; auto: all there are, 0: the CPU."
    )
    manual_seed: int | None = option(
        None, unit="seed", ge=0, le=2**31 - 1, text="Seed of everything random; default: drawn at the start and logged."
    )
    deterministic: bool = option(False, unit="switch", text="Use deterministic algorithms only; slower.")
    use_amp: bool = option(False, unit="switch", text="Mixed precision, where the device can.")
    amp_bf16: bool = option(False, unit="switch", text="bfloat16 instead of float16 for mixed precision.")
    use_channels_last: bool = option(True, unit="switch", text="Channels-last memory layout, faster on tensor cores.")
    use_compile: bool = option(False, unit="switch", text="Compile the networks with torch.compile.")
    compile_mode: CompileMode = option("max-autotune-no-cudagraphs", unit="mode", text="Mode of torch.compile.")
    fast_matmul: bool = option(False, unit="switch", text="Allow TF32 in float32 products; faster, less exact.")
    detect_anomaly: bool = option(False, unit="switch", text="Let autograd name the operation that makes NaN; slow.")
    auto_resume: Switch = option(
        False, unit="switch", text="Go on from the newest complete checkpoint, if there is one."
    )
    dist: Switch = option(False, unit="switch", text="Require that torchrun or Slurm started the processes.")
    network_g: Network = option(unit="section", text="The generator: type and parameters; scale is the file's.")
    network_d: Network | None = option(None, unit="section", text="The discriminator: type and parameters.")
    datasets: Annotated[Mapping[str, DatasetOptions], AfterValidator(ReadOnly)] = option(
        default_factory=lambda: ReadOnly[DatasetOptions]({}),
        unit="sections",
        text="Data sets by phase: train; val, val_2, ... for validation; test, test_2, ... for test.py.",
    )
    path: PathOptions = option(default_factory=PathOptions, unit="section", text="Files and folders.")
    train: TrainOptions | None = option(None, unit="section", text="Training; required for train.py.")
    val: ValOptions | None = option(None, unit="section", text="Validation; default: none.")
    logger: LogOptions | None = option(None, unit="section", text="Logging and saving; required for train.py.")

    _tree: Node = PrivateAttr()
    _text: str = PrivateAttr(default="")
    _notices: tuple[str, ...] = PrivateAttr(default=())

    @property
    def file(self) -> str:
        """Path of the option file, as it was given."""
        return self._tree.file

    @property
    def text(self) -> str:
        """The option file's text."""
        return self._text

    @property
    def notices(self) -> list[str]:
        """What the user should know, one line each: options without effect here, ones left out, debug values."""
        return list(self._notices)

    def has(self, key: str) -> bool:
        """Whether the file (or the command line) says the option at a key path, such as `network_g.in_chans`."""
        return not locate(self._tree, key)[1]

    def problem(self, key: str, message: str) -> Problem:
        """A mistake found later, such as a missing folder, with file and line.

        Args:
            key: path of the option, such as `datasets.train.dataroot_gt` or `train.losses[0].type`; where the file does
                not have it, the line is that of the nearest section that it has.
            message: what was found; what is accepted.
        """
        return problem_at(self._tree, key, message)

    @classmethod
    def checked(cls, tree: Node, *, text: str, notices: tuple[str, ...]) -> Options:
        """The options of a node tree, remembering where they came from.

        Raises:
            pydantic.ValidationError: with every mistake.
        """
        options = cls.model_validate(tree.plain())
        options._tree, options._text, options._notices = tree, text, notices
        return options
