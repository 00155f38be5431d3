"""The sections of an option file, typed. Names and defaults are traiNNer-redux's; each field has text and unit.

Frozen: after loading, options do not change. Components (`network_g`, entries of `losses`, ...) are checked against
their registries' signatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from traiNNer.config.components import ComponentOptions, OfKind, ReadOnly, parameters_of
from traiNNer.utils.fields import Iterations, option
from traiNNer.utils.registry import (
    AUTOMATIONS,
    DATASETS,
    LOSSES,
    METRICS,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULERS,
    loss_labels,
)
from traiNNer.utils.scheduler_params import SchedulerParams
from traiNNer.utils.weight_schedule import WeightSchedule

Names: TypeAlias = Annotated[tuple[str, ...], Strict(False)]


def plain(value: Any) -> Any:
    """A section, component or container as dicts, lists and scalars, as JSON and YAML have them."""
    if isinstance(value, Section):
        return value.dump()
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in cast("Sequence[Any]", value)]
    return value


class Section(BaseModel):
    """A frozen section: strict scalars, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )

    def dump(self) -> dict[str, Any]:
        """The resolved options as an option file has them: dicts, lists and scalars."""
        return {name: plain(getattr(self, name)) for name in type(self).model_fields}


def _on(value: Any) -> Any:
    return False if value is None else value


Switch: TypeAlias = Annotated[bool, BeforeValidator(_on)]
"""A switch that may be written empty, which means false."""
Network: TypeAlias = Annotated[ComponentOptions, OfKind(NETWORKS)]
Optimizer: TypeAlias = Annotated[ComponentOptions, OfKind(OPTIMIZERS)]
Scheduler: TypeAlias = Annotated[ComponentOptions, OfKind(SCHEDULERS)]
Metric: TypeAlias = Annotated[ComponentOptions, OfKind(METRICS)]


class LossEntry(WeightSchedule):
    """Keys of an entry of `train.losses` beside `type` and the loss's own parameters."""

    name: str | None = option(
        None,
        unit="label",
        pattern=r"^[\w.\-]+$",
        text="Label in log and TensorBoard; default: the type, then type_2, ...",
    )
    share: float | None = option(
        None,
        unit="ratio",
        gt=0,
        text="For dynamic_loss_scheduling: wanted share of the gradient, relative to the anchor's; default: by weight.",
    )
    fixed: Switch = option(False, unit="switch", text="For dynamic_loss_scheduling: leave this weight alone.")


Loss: TypeAlias = Annotated[ComponentOptions, OfKind(LOSSES, common=LossEntry)]


def _listed(value: Any) -> Any:
    return value


LossSchedulers: TypeAlias = Annotated[
    tuple[SchedulerParams, ...],
    Strict(False),
    BeforeValidator(_listed, json_schema_input_type=SchedulerParams | list[SchedulerParams]),
]


def _label(losses: tuple[ComponentOptions, ...]) -> tuple[ComponentOptions, ...]:
    common, labels = list(LossEntry.model_fields), loss_labels(losses)
    return tuple(
        ComponentOptions({**entry, "name": label}, common) for entry, label in zip(losses, labels, strict=True)
    )


class DatasetOptions(Section):
    """One data set: how it is loaded, and what it is (`type` and its parameters)."""

    LOADER_KEYS: ClassVar[tuple[str, ...]] = (
        "name",
        "batch_size_per_gpu",
        "accum_iter",
        "num_worker_per_gpu",
        "pin_memory",
        "prefetch_factor",
        "persistent_workers",
        "dataset_enlarge_ratio",
    )

    name: str = option(unit="label", min_length=1, text="Name of the data set in log and messages.")
    batch_size_per_gpu: int | None = option(
        None, unit="images", ge=1, text="Images per micro-batch and process; required for training."
    )
    accum_iter: int = option(1, unit="micro-batches", ge=1, text="Micro-batches whose gradients make one iteration.")
    num_worker_per_gpu: int = option(
        2, unit="processes", ge=0, text="Loader processes per training process; 0 loads in the training process."
    )
    pin_memory: bool = option(True, unit="switch", text="Copy batches to the accelerator from page-locked memory.")
    prefetch_factor: int | None = option(
        2, unit="batches", ge=1, text="Batches that each loader process prepares ahead."
    )
    persistent_workers: bool = option(True, unit="switch", text="Keep loader processes between epochs.")
    dataset_enlarge_ratio: Literal["auto"] | Annotated[int, Field(ge=1)] = option(
        "auto", unit="factor", text="How often an epoch passes over every image; auto: the loader decides."
    )
    component: Annotated[ComponentOptions, OfKind(DATASETS, own=LOADER_KEYS)] = option(
        unit="section", text="`type` and the data set's own parameters, as `DATASETS.build` takes them."
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        section = cast("dict[str, Any]", data)
        loader = {key: value for key, value in section.items() if key in cls.LOADER_KEYS}
        own = parameters_of(DATASETS, section)
        component = {key: value for key, value in section.items() if key not in loader or key in own}
        return {**loader, "component": component}

    @property
    def type(self) -> str:
        """Registered name of the data set."""
        return self.component.type

    def dump(self) -> dict[str, Any]:
        """The section as a file has it, loader keys and parameters in one."""
        values = super().dump()
        return {**values.pop("component"), **values}


class PathOptions(Section):
    """Files and folders. Relative ones are relative to the current directory."""

    pretrain_network_g: str | None = option(None, unit="file", text="Weights with which net_g starts.")
    pretrain_network_d: str | None = option(None, unit="file", text="Weights with which net_d starts.")
    param_key_g: str | None = option(
        None, unit="key", text="Key of the weights in the file of net_g; default: params_ema, params, state_dict."
    )
    param_key_d: str | None = option(None, unit="key", text="Key of the weights in the file of net_d.")
    strict_load_g: bool = option(
        True, unit="switch", text="Refuse weights that do not fit net_g; false: load what fits and report the rest."
    )
    strict_load_d: bool = option(True, unit="switch", text="As strict_load_g, for net_d.")
    resume_state: str | None = option(None, unit="file", text="Training state (.state) from which the run goes on.")
    ignore_resume_networks: Names | None = option(
        None, unit="names", text="Networks that a resume leaves as they are (net_g, net_d)."
    )
    experiments_root: str | None = option(
        None,
        unit="folder",
        text="Folder of the runs; the run's is NAME in it, unless it ends so. Default: experiments.",
    )
    models: str | None = option(None, unit="folder", text="Release weights. Default: models in the run's folder.")
    resume_models: str | None = option(
        None, unit="folder", text="Weights that a resume reads. Default: resume_models in the run's folder."
    )
    training_states: str | None = option(
        None, unit="folder", text="Training states. Default: training_states in the run's folder."
    )
    log: str | None = option(None, unit="folder", text="Text log. Default: the run's folder.")
    visualization: str | None = option(
        None, unit="folder", text="Validation pictures. Default: visualization in the run's folder."
    )
    results_root: str | None = option(
        None,
        unit="folder",
        text="Folder of test.py's results; NAME is made in it, unless it ends so. Default: results.",
    )


class AutomationEntry(Section):
    """Keys of every automation's section beside its own parameters."""

    enabled: Switch = option(True, unit="switch", text="Whether it runs.")
    max_adjustments: int | None = option(
        None, unit="adjustments", ge=0, text="After so many the last values hold; null: the automation's own number."
    )


def _complete(automation: ComponentOptions) -> ComponentOptions:
    defaults = {name: field.default for name, field in AutomationEntry.model_fields.items()}
    return ComponentOptions({**defaults, **automation}, list(defaults))


Automation: TypeAlias = Annotated[
    ComponentOptions, OfKind(AUTOMATIONS, common=AutomationEntry), AfterValidator(_complete)
]


class AutomationsOptions(Section):
    """What changes the training while it runs; an automation without a section does not run.

    The section, and each automation's, may also stand at top level or directly under `train`, but once. Names count
    without regard to case and underscores: `IntelligentEarlyStopping` is `intelligent_early_stopping`, and so is
    `early_stopping`. An empty section or `true` is an automation with its defaults, `false` one that is off. Keys
    `fallback_x` may be written as `fallback: {x: ...}`; iterations also as 2k, or as a part of the run, 5%. While
    `adaptive_gradient_clipping` is switched off, its `fallback_threshold` is in force all the time; where that is not
    written, `grad_clip_max_norm`.
    """

    enabled: Switch = option(True, unit="switch", text="Whether any automation runs.")
    dynamic_loss_scheduling: Automation | None = option(
        None, unit="section", text="DynamicLossScheduling: weights of losses that follow data and gradients."
    )
    intelligent_learning_rate_scheduler: Automation | None = option(
        None, unit="section", text="IntelligentLearningRateScheduler: a factor on the learning rate."
    )
    dynamic_batch_size_optimizer: Automation | None = option(
        None, unit="section", text="DynamicBatchSizeOptimizer: a batch size that follows the memory."
    )
    adaptive_gradient_clipping: Automation | None = option(
        None, unit="section", text="AdaptiveGradientClipping: a clipping threshold that follows the gradients."
    )
    intelligent_early_stopping: Automation | None = option(
        None, unit="section", text="IntelligentEarlyStopping: the end of a run that gains nothing any more."
    )

    @property
    def written(self) -> dict[str, ComponentOptions]:
        """The automations that have a section, also those that are off, by key."""
        found = {name: getattr(self, name) for name in type(self).model_fields if name != "enabled"}
        return {name: automation for name, automation in found.items() if automation is not None}

    @property
    def active(self) -> dict[str, ComponentOptions]:
        """The automations that run, by key; none when all are switched off."""
        return {name: each for name, each in self.written.items() if self.enabled and each["enabled"]}

    def dump(self) -> dict[str, Any]:
        """The section as a file has it: without those that have none, for an empty section is one that is on."""
        return {"enabled": self.enabled, **{name: plain(automation) for name, automation in self.written.items()}}


class TrainOptions(Section):
    """What is optimized, how, and for how long. An iteration is one optimizer step, counted from 1."""

    total_iter: Iterations = option(unit="iterations", ge=1, text="Length of the training.")
    ema_decay: float = option(
        0.0, unit="factor per iteration", ge=0, lt=1, text="Decay of the averaged weights (EMA) of net_g; 0: no EMA."
    )
    ema_power: float = option(
        10.0, unit="exponent", gt=0, text="Decay at EMA step s: min(ema_decay, 1 - (s + 1)^-ema_power)."
    )
    ema_update_after_step: Iterations = option(
        0, unit="iterations", ge=0, text="Until then the EMA equals the weights."
    )
    adaptive_d: bool = option(
        False, unit="switch", text="Pause net_d while the generator's adversarial loss rises, so that it can catch up."
    )
    adaptive_d_ema_decay: float = option(
        0.999, unit="factor per iteration", ge=0, lt=1, text="Decay of the moving average that adaptive_d watches."
    )
    adaptive_d_threshold: float = option(
        1.02, unit="ratio", gt=0, text="net_d pauses at an iteration that raises the average by more than this ratio."
    )
    grad_clip: bool = option(False, unit="switch", text="Clip the gradient norm of each network.")
    grad_clip_max_norm: float = option(100.0, unit="norm", gt=0, text="Largest gradient norm that is left as it is.")
    warmup_iter: Iterations = option(
        -1, unit="iterations", ge=-1, text="Iterations over which the learning rate rises to its full value; -1: none."
    )
    optim_g: Optimizer | None = option(None, unit="section", text="Optimizer of net_g; required for training.")
    optim_d: Optimizer | None = option(None, unit="section", text="Optimizer of net_d.")
    scheduler: Scheduler | None = option(
        None, unit="section", text="Learning-rate schedule of every network; default: constant."
    )
    scheduler_g: Scheduler | None = option(None, unit="section", text="Schedule of net_g alone; default: scheduler.")
    scheduler_d: Scheduler | None = option(None, unit="section", text="Schedule of net_d alone; default: scheduler.")
    losses: Annotated[tuple[Loss, ...], Strict(False), AfterValidator(_label)] | None = option(
        None, unit="list", text="Losses; each has type, loss_weight, perhaps name, and its own parameters."
    )
    loss_scheduler: LossSchedulers | None = option(
        None, unit="section", text="Moves weight from some losses to others; one section, or a list of them."
    )
    training_automations: AutomationsOptions = option(
        default_factory=AutomationsOptions,
        unit="section",
        text="What changes the training while it runs; default: nothing.",
    )


class ValOptions(Section):
    """Validation during training, and what test.py does."""

    val_enabled: bool = option(unit="switch", text="Validate.")
    save_img: bool = option(unit="switch", text="Write a picture per validation image.")
    val_freq: Annotated[Iterations, Field(ge=1)] | None = option(
        None, unit="iterations", text="Iterations between validations; required if val_enabled."
    )
    tile_size: int = option(0, unit="LQ pixels", ge=0, text="Side of the tiles in which an image is run; 0: whole.")
    tile_overlap: int = option(0, unit="LQ pixels", ge=0, text="Overlap of neighbouring tiles.")
    suffix: str | None = option(
        None, unit="text", text="Added to the names of result pictures; default: the run's name."
    )
    metrics_enabled: bool = option(False, unit="switch", text="Compute the metrics.")
    metrics: Annotated[Mapping[str, Metric], AfterValidator(ReadOnly)] | None = option(
        None, unit="sections", text="Metrics by label; each has type (default: the label) and parameters."
    )
    pbar: bool = option(True, unit="switch", text="Show progress during validation.")
    samples_per_checkpoint: int = option(
        0,
        unit="checkpoints",
        ge=0,
        text="At every so many scheduled checkpoints, write the result of each validation image, without metrics and "
        "also where val_enabled is false: samples/IMAGE_ITERATION.webp in the run's folder; 0: never.",
    )


class LogOptions(Section):
    """What is logged and saved, and when."""

    print_freq: Iterations = option(unit="iterations", ge=1, text="Iterations between log lines.")
    save_checkpoint_freq: Iterations = option(unit="iterations", ge=1, text="Iterations between checkpoints.")
    use_tb_logger: bool = option(unit="switch", text="Write TensorBoard files.")
    save_checkpoint_format: Literal["safetensors", "pth"] = option(
        "safetensors", unit="format", text="Format of release weights."
    )
    save_last_n: int | None = option(
        None, unit="checkpoints", ge=1, text="Checkpoints that are kept; default: all. The best are always kept."
    )
