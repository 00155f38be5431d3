"""What sections take over from elsewhere before they are checked: scale, a data set's phase, a metric's type.

Which of it a component takes is said by its signature, so nothing here names one.
"""

from __future__ import annotations

from traiNNer.config.checks import PHASES
from traiNNer.config.components import parameters_of
from traiNNer.config.renames import take_out
from traiNNer.config.sections import LossEntry
from traiNNer.config.tree import Node, join
from traiNNer.config.vocabulary import DATASET_KEYS, LOSS_KEYS
from traiNNer.utils.errors import Problem
from traiNNer.utils.fields import iterations
from traiNNer.utils.registry import DATASETS, LOSSES, NETWORKS, Registry
from traiNNer.utils.schema import shown
from traiNNer.utils.weight_schedule import ITERATION_KEYS, absolute


def fill(root: Node, notices: list[Problem]) -> list[Problem]:
    """Complete component sections in the tree; returns the contradictions found on the way."""
    problems = _network(root)
    problems += _datasets(root, notices)
    total_iter = _total_iter(root)
    for entry in _child(root, "train", "losses").items:
        knots = [at for knot in _child(entry, "knots").items for at in knot.items[:1]]
        for node in [*(_child(entry, name) for name in ITERATION_KEYS), *knots]:
            node.value = absolute(node.value, total_iter)
        problems += take_out(entry, LOSS_KEYS, notices, but=[*LossEntry.model_fields, *_parameters(LOSSES, entry)])
    for label, metric in _child(root, "val", "metrics").section.items():
        if metric.value is None:
            metric.value = {}
        if isinstance(metric.value, dict) and "type" not in metric.value:
            metric.child("type", label)
    return problems


def _total_iter(root: Node) -> int:
    """The length of the run, as far as it can be read; 0 where that itself is a mistake."""
    try:
        return iterations(_child(root, "train", "total_iter").value)
    except ValueError:
        return 0


def _network(root: Node) -> list[Problem]:
    network = _child(root, "network_g")
    if "scale" in _parameters(NETWORKS, network):
        return _inherit_scale(root, network)
    return []


def _datasets(root: Node, notices: list[Problem]) -> list[Problem]:
    datasets = _child(root, "datasets")
    if "datasets" in root.section and datasets.value is None:
        datasets.value = {}
    problems: list[Problem] = []
    for phase, dataset in datasets.section.items():
        names = _parameters(DATASETS, dataset)
        problems += take_out(dataset, DATASET_KEYS, notices, but=names)
        if "scale" in names:
            problems += _inherit_scale(root, dataset)
        if "phase" in names and "phase" not in dataset.section:
            dataset.child("phase", phase.partition("_")[0] if PHASES.fullmatch(phase) else "val")
        if isinstance(dataset.value, dict) and "name" not in dataset.value:
            dataset.child("name", phase)
    return problems


def _inherit_scale(root: Node, section: Node) -> list[Problem]:
    """Give a section the file's scale, or say that its own differs."""
    scale = _child(root, "scale")
    own = section.section.get("scale")
    if own is None or own.value is None:
        if isinstance(scale.value, int):
            section.section["scale"] = Node(scale.value, scale.line, join(section.written, "scale"), scale.file)
        return []
    if own.value != scale.value and isinstance(own.value, int) and isinstance(scale.value, int):
        message = (
            f"found {shown(own.value)}, but the file's scale is {scale.value} (line {scale.line}); accepted: the same"
        )
        section.section["scale"] = Node(scale.value, own.line, own.written, own.file)
        return [own.problem(message)]
    return []


def _parameters(registry: Registry, section: Node) -> list[str]:
    return parameters_of(registry, {"type": _child(section, "type").value})


def _child(node: Node, *names: str) -> Node:
    """The node below, or an empty one that belongs to nothing."""
    for name in names:
        node = node.section.get(name) or Node(None, None, "", node.file)
    return node
