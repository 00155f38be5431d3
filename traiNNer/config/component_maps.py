"""Optimizers and schedules by component: the general spelling, and a file of its own for them.

`optimizers: {net_g: {...}}` means `train.optim_g`, `schedulers: {net_d: {...}}` means `train.scheduler_d`; the node
tree is rearranged accordingly, so that a message still names file, line and key as they were written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from traiNNer.config.reading import parse, read_file
from traiNNer.config.tree import Node
from traiNNer.utils.errors import Problem, nearest

SECTIONS = {
    "optimizers": "optim",
    "optimizer_config": "optim",
    "schedulers": "scheduler",
    "scheduler_config": "scheduler",
}
"""Names of the maps, each at top level or under `train`, and what the keys that they stand for begin with."""

OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "generator": ("net_g",),
    "g": ("net_g",),
    "discriminator": ("net_d",),
    "d": ("net_d",),
    "vae": ("vae_encoder", "vae_decoder"),
    "flow": ("flow_processor",),
}
"""Names of users' files for networks that are optimized; an autoencoder's is for both of its halves."""

NETWORKS = ("net_g", "net_d")
"""The networks that a super-resolution model optimizes."""


def components(name: str, available: Sequence[str] = NETWORKS) -> list[str]:
    """The networks that a name in a map of components means; none if the model does not have it."""
    return [network for network in OTHER_NAMES.get(name, (name,)) if network in available]


def spread(root: Node) -> list[Problem]:
    """Move what the maps of an option file hold to the keys that they stand for."""
    train = root.section.get("train")
    parents = [root, *([train] if train is not None and isinstance(train.value, dict) else [])]
    problems: list[Problem] = []
    for parent in parents:
        for name in [name for name in parent.section if name in SECTIONS]:
            problems += _place(root, parent.section.pop(name), SECTIONS[name])
    return problems


def replace_from(root: Node, path: Path) -> list[Problem]:
    """Put the components that a JSON or YAML file names in the place of the option file's; the rest stays.

    Raises:
        ConfigError: the file cannot be read, or is neither JSON nor YAML.
    """
    text = read_file(path)
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, which YAML refuses; its texts hold none
    tree, problems = parse(text, str(path))
    placed: set[str] = set()
    for name, node in tree.section.items():
        if name in SECTIONS:
            problems += _place(root, node, SECTIONS[name], replacing=placed)
        else:
            message = f"unknown key; accepted: {', '.join(SECTIONS)}{nearest(name, SECTIONS)}"
            problems.append(node.problem(message))
    return problems


def _place(root: Node, node: Node, kind: str, replacing: set[str] | None = None) -> list[Problem]:
    if node.value is None:
        return []
    if not isinstance(node.value, dict):
        return [node.problem("found something else; accepted: a section with a section for each network")]
    train = root.section.get("train") or root.child("train", {}, node.line)
    return list(_place_each(train, node, kind, replacing))


def _place_each(train: Node, node: Node, kind: str, replacing: set[str] | None) -> Iterator[Problem]:
    """Put a map's entries under `train`.

    Args:
        train: the section.
        node: the map.
        kind: what the keys begin with.
        replacing: keys that the same file has replaced so far, any other may be; None if none may be.
    """
    for name, entry in node.section.items():
        networks = components(name)
        if not networks:
            accepted = ", ".join(_with_other_names(network) for network in NETWORKS)
            names = [*NETWORKS, *(other for other in OTHER_NAMES if components(other))]
            yield entry.problem(f"this model has no such network; accepted: {accepted}{nearest(name, names)}")
        for network in networks:
            key = f"{kind}_{network.removeprefix('net_')}"
            present = train.section.get(key)
            taken = replacing is None or key in replacing
            if present is not None and present.value is not None and taken:
                yield entry.problem(f"the same as {present.written} in line {present.line}; accepted: one of them")
            elif isinstance(train.value, dict):
                train.section[key] = entry
                if replacing is not None:
                    replacing.add(key)


def _with_other_names(network: str) -> str:
    others = [name for name, networks in OTHER_NAMES.items() if networks == (network,)]
    return f"{network} ({', '.join(others)})"
