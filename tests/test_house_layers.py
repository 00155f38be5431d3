"""Imports go down only: each import, also one within a function, leads to the same layer or a lower one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = ("archs", "losses", "metrics", "data", "optimizers", "schedulers")
LAYERS = [
    ("types",),
    ("utils",),
    ("config",),
    COMPONENTS,
    ("models",),
    ("training_automations",),
    ("trainer", "validation", "inference", "best", "interrupts", "monitor", "reporting", "samples", "pictures"),
]
"""From the bottom up, by the first part of the name under `traiNNer`. What is not listed assembles a run: the top."""
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
TOP = len(LAYERS)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "traiNNer").rglob("*.py"))}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def rank(module: str) -> int:
    return RANK.get(part(module), TOP) if part(module) else 0


def imports(module: str, statements: Iterator[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and full name of each of our modules that the statements import."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in statements:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in found if name.split(".")[0] == "traiNNer")


def everywhere(module: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return imports(module, ast.walk(tree))


def test_the_package_is_found() -> None:
    assert {"traiNNer.types", "traiNNer.utils.registry", "traiNNer.losses.l1_loss"} <= set(MODULES)
    assert any(name == "traiNNer.utils.registry" for _, name in everywhere("traiNNer.losses.l1_loss"))


def test_imports_go_down_only() -> None:
    upward = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for line, name in everywhere(module)
        if rank(name) > rank(module)
    ]
    assert upward == []


def test_components_of_one_kind_do_not_know_those_of_another() -> None:
    sideways = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for line, name in everywhere(module)
        if part(module) in COMPONENTS and part(name) in COMPONENTS and part(module) != part(name)
    ]
    assert sideways == []


def test_nothing_in_the_package_imports_a_program() -> None:
    programs = {"train", "test", "scripts", "benchmarks", "tests"}
    found = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{module} imports {name}" for name in names if name.split(".")[0] in programs]
    assert found == []


def test_no_modules_import_each_other() -> None:
    """Only statements at module level count: an import within a function is the way out of a circle."""
    graph = {}
    for module, path in MODULES.items():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = {name for _, name in imports(module, iter(body))}
        graph[module] = {name for name in names if name != module and not module.startswith(f"{name}.")}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle
    assert set(MODULES) <= set(order)
