"""A run of test.py: a network with its weights on the test sets of an option file, into the results folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from traiNNer.archs import build_network
from traiNNer.component_checks import build_metrics
from traiNNer.config import Options, load_options, run_paths
from traiNNer.data import ImageDataset, ValidationLoader, build_dataset, check_datasets, normalization_of
from traiNNer.field_checks import check_weights, network_options, settle_test_normalization
from traiNNer.findings import Findings
from traiNNer.inference import network_info
from traiNNer.reporting import figure
from traiNNer.run_folders import check_folder, move_away
from traiNNer.types import Metric
from traiNNer.utils.device import configure_backends, describe_device, resolve_device
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.logging import configure_logging, get_logger, make_console
from traiNNer.utils.weights import WeightsFile, load_into, read_weights
from traiNNer.validation import ValidationReport, Validator

if TYPE_CHECKING:
    from rich.console import Console


def evaluate(option_file: Path) -> int:
    """Validate or upscale every test set of an option file; returns the exit code.

    The sets are `datasets.test`, `test_2`, ...; in a file without them, the validation sets. Results are in
    `results_root`/name/<data set's name>; an earlier folder of that name is moved away. Computed in float32.

    Raises:
        ConfigError: mistakes in the option file or in what it names (exit code 2); nothing has been written.
        RunError: an image cannot be read, or memory is short even for the smallest tiles (exit code 1).
    """
    options = load_options(option_file, purpose="test")
    findings = Findings(options)
    device, notices = torch.device("cpu"), list(options.notices)
    with findings.at("num_gpu"):
        device, found = resolve_device(options.num_gpu, 0, 1)
        notices += found
    configure_backends(device, deterministic=options.deterministic, fast_matmul=options.fast_matmul)
    datasets = _datasets(options, findings)
    net, weights = _network(options, findings, notices, next(iter(datasets.values()), None))
    if weights is not None:
        settle_test_normalization(datasets, weights, network_info(net), findings)
    metrics = build_metrics(options, datasets.values(), findings)
    folder = run_paths(options).results
    with findings.at("path.results_root"):
        check_folder(folder)
    findings.raise_if_any()
    archived = move_away(folder)
    folder.mkdir(parents=True)
    console = make_console()
    configure_logging(console, folder / "test.log")
    logger = get_logger()
    for notice in [*([f"earlier results were moved to {archived}"] if archived else []), *notices]:
        logger.info(notice)
    logger.info("%s: %s x%d on %s", options.name, options.network_g.type, options.scale, describe_device(device))
    for label, metric in metrics.items():
        logger.info("%s: %s", label, metric.describe())
    for key, dataset in datasets.items():
        validator = _validator(options, key, dataset, metrics, folder)
        report = _run(validator, net.to(device), options, console, len(dataset))
        _log(validator, report)
    logger.info("done: %s", folder)
    return 0


def _network(
    options: Options, findings: Findings, notices: list[str], dataset: ImageDataset | None
) -> tuple[nn.Module, WeightsFile | None]:
    """The network and the weights in it; None where something is wrong with them."""
    net: Any = nn.Identity()
    loaded: WeightsFile | None = None
    with findings.at("network_g"):
        net = build_network(network_options(options, "network_g", dataset))
        with findings.at("path.pretrain_network_g"):
            if options.path.pretrain_network_g is None:
                raise ConfigError("required key is missing; accepted: the file of the weights to test")
            weights = read_weights(Path(options.path.pretrain_network_g), param_key=options.path.param_key_g)
            check_weights(weights, dataset)
            report = load_into(net, weights, strict=options.path.strict_load_g, where="pretrain_network_g")
            net.network_info = replace(net.network_info, normalization=weights.normalization)
            notices += [f"net_g: loaded {options.path.pretrain_network_g}", *report.lines]
            loaded = weights
    return net, loaded


def _datasets(options: Options, findings: Findings) -> dict[str, ImageDataset]:
    keys = [key for key in options.datasets if key.startswith("test")]
    keys = keys or [key for key in options.datasets if key.startswith("val")]
    datasets: dict[str, ImageDataset] = {}
    with findings.at("datasets"):
        if not keys:
            raise ConfigError("there is no data set to test on; accepted: test, test_2, ...")
    for key in keys:
        section = options.datasets[key]
        with findings.at(f"datasets.{key}"):
            parameters = {**section.component, "phase": "val", "scale": options.scale, "name": section.name}
            datasets[key] = build_dataset(parameters)
    with findings.at("datasets"):
        check_datasets(datasets)
    return datasets


def _validator(
    options: Options, key: str, dataset: ImageDataset, metrics: Mapping[str, Metric], folder: Path
) -> Validator:
    section, val = options.datasets[key], options.val
    written = [section.component.get(name) or [] for name in ("dataroot_lq", "dataroot_gt")]
    roots = [Path(root) for each in written for root in ([each] if isinstance(each, str) else each)]
    return Validator(
        section.name,
        ValidationLoader(dataset, num_workers=section.num_worker_per_gpu),
        metrics,
        scale=options.scale,
        tile_size=val.tile_size if val else 0,
        tile_overlap=val.tile_overlap if val else 0,
        save_folder=folder / _folder_name(section.name) if val is None or val.save_img else None,
        suffix=(val.suffix if val else None) or options.name,
        roots=roots,
        normalization=normalization_of(dataset),
    )


def _folder_name(name: str) -> str:
    """A data set's name as the name of one folder, on every system."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "_"


def _run(validator: Validator, net: nn.Module, options: Options, console: Console, images: int) -> ValidationReport:
    shown = console.is_terminal and (options.val is None or options.val.pbar)
    from rich.progress import Progress

    with Progress(console=console, transient=True) if shown else nullcontext() as progress:
        if progress is None:
            return validator.run(net, None)
        task = progress.add_task(validator.name, total=images)
        return validator.run(net, None, on_image=lambda: progress.advance(task))


def _log(validator: Validator, report: ValidationReport) -> None:
    logger = get_logger()
    for image in report.each:
        if image.values:
            logger.info("  %s: %s", image.name, _figures(image.values, image.bicubic))
    figures = f": {_figures(report.values, validator.baseline())}" if report.values else ""
    logger.info("%s, %d images in %.1f s%s", validator.name, report.images, report.seconds, figures)


def _figures(values: dict[str, float], baseline: dict[str, float]) -> str:
    return "  ".join(
        f"{label} {figure(value)} (bicubic {figure(baseline[label])})"
        if label in baseline
        else f"{label} {figure(value)}"
        for label, value in values.items()
    )
