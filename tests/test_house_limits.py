"""The limits of the design, read from the source: sizes, attributes, and what code here does not do.

Complexity, annotations, docstrings and style are ruff's and pyright's to check; both run in `.ci/run`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = [path for path in (ROOT / "train.py", ROOT / "test.py") if path.exists()]
PACKAGE = sorted((ROOT / "traiNNer").rglob("*.py"))
OUTSIDE = sorted([*ENTRIES, *(ROOT / "scripts").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
NETWORKS = ROOT / "traiNNer" / "archs"
"""Networks are written as their papers draw them; the limits on size do not hold for them."""
FILE_LINES, FUNCTION_LINES, ATTRIBUTES, ENTRY_LINES, COMPLEXITY = 400, 60, 15, 60, 10
OPTION_MODELS = {"Section", "BaseModel"}
"""Classes derived from these hold the options of a file, however many there are."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def nodes(paths: list[Path], *kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for path in paths:
        for node in ast.walk(tree(path)):
            if isinstance(node, kinds):
                yield path, node


def sized() -> list[Path]:
    return [path for path in [*PACKAGE, *OUTSIDE] if not path.is_relative_to(NETWORKS)]


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{getattr(node, 'lineno', 1)}"


def name_of(node: ast.expr) -> str:
    """`sys.exit` for an attribute, `print` for a name, the callee for a call, else an empty string."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    if isinstance(node, ast.Subscript):
        return name_of(node.value)
    return node.id if isinstance(node, ast.Name) else ""


def test_the_source_is_found() -> None:
    assert len(PACKAGE) > 20
    assert ROOT / "scripts" / "bootstrap.py" in OUTSIDE


def test_files_have_at_most_400_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sized()}
    assert [f"{path}: {length}" for path, length in lengths.items() if length > FILE_LINES] == []


def test_entry_programs_stay_short() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in ENTRIES}
    assert {name: length for name, length in lengths.items() if length >= ENTRY_LINES} == {}


def lines_of(function: Function) -> int:
    """Lines of a function without its docstring."""
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        assert first.end_lineno is not None
        length -= first.end_lineno - first.lineno + 1
    return length


def test_functions_have_at_most_60_lines() -> None:
    functions = [(path, node) for path, node in nodes(sized(), ast.FunctionDef, ast.AsyncFunctionDef)]
    long = [f"{place(path, node)} {node.name}: {lines_of(node)}" for path, node in functions if lines_of(node) > 60]
    assert long == []


def attributes_of(cls: ast.ClassDef) -> set[str]:
    """Names assigned on `self` in any method, and annotated fields of the class itself."""
    names = {
        item.target.id for item in cls.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and name_of(node.value) == "self":
            names.add(node.attr)
    return names


def test_classes_have_at_most_15_attributes() -> None:
    crowded = [
        f"{place(path, node)} {node.name}: {sorted(attributes_of(node))}"
        for path, node in nodes(sized(), ast.ClassDef)
        if len(attributes_of(node)) > ATTRIBUTES and not OPTION_MODELS & {name_of(base) for base in node.bases}
    ]
    assert crowded == []


def test_input_is_never_checked_with_assert() -> None:
    assert [place(path, node) for path, node in nodes([*PACKAGE, *OUTSIDE], ast.Assert)] == []


def test_the_package_does_not_print() -> None:
    calls = nodes(PACKAGE, ast.Call)
    assert [place(path, node) for path, node in calls if name_of(node) in ("print", "breakpoint", "input")] == []


def test_no_except_hides_what_it_does_not_know() -> None:
    """`except:` is never right; `except Exception:` only where the error goes on after something was put in order."""
    blind = []
    for path, node in nodes([*PACKAGE, *OUTSIDE], ast.ExceptHandler):
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        everything = any(kind is None or name_of(kind) in ("Exception", "BaseException") for kind in caught)
        if everything and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
            blind.append(place(path, node))
    assert blind == []


def test_only_entry_programs_end_the_process() -> None:
    ends = [
        place(path, node)
        for path, node in nodes(PACKAGE, ast.Call, ast.Raise)
        if name_of(node if isinstance(node, ast.Call) else node.exc or ast.Name(""))
        in ("sys.exit", "exit", "quit", "SystemExit")
    ]
    assert ends == []


def test_text_files_are_opened_as_utf8() -> None:
    """Without `encoding`, Windows reads and writes text in the code page of its country."""
    careless = []
    for path, node in nodes([*PACKAGE, *OUTSIDE], ast.Call):
        given = {keyword.arg for keyword in node.keywords}
        called = name_of(node).rsplit(".", 1)[-1]
        mode = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        binary = any(isinstance(value, str) and "b" in value and len(value) <= 3 for value in mode)
        text = called in ("read_text", "write_text") or (name_of(node) == "open" and not binary)
        if text and "encoding" not in given:
            careless.append(place(path, node))
    assert careless == []


IMPORT_EVERYTHING = """
import importlib, logging, os, pkgutil, random, signal, sys
import numpy, torch, traiNNer

def state():
    logger = logging.getLogger()
    return {
        "log handlers": list(logger.handlers), "log level": logger.level, "folder": os.getcwd(),
        "environment": dict(os.environ), "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "random": random.getstate(), "numpy": str(numpy.random.get_state()), "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(), "cuda": torch.cuda.is_initialized(), "arguments": list(sys.argv),
        "precision": (torch.get_float32_matmul_precision(), torch.is_deterministic_algorithms_warn_only_enabled()),
    }

before = state()
names = [module.name for module in pkgutil.walk_packages(traiNNer.__path__, "traiNNer.")]
for name in names:
    importlib.import_module(name)
after = state()
print(len(names), [key for key in before if before[key] != after[key]])
"""


def test_importing_a_module_changes_nothing_in_the_process() -> None:
    """No logging set-up, signal handler, seed, thread count or CUDA context comes from an import."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == f"{len(PACKAGE) - 1} []"


def test_pytest_collects_every_file_with_tests() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = tools["pytest"]["ini_options"]["python_files"]
    holding = {path for path, node in nodes(TESTS, ast.FunctionDef) if getattr(node, "name", "").startswith("test_")}
    assert [path.name for path in sorted(holding) if not any(path.match(pattern) for pattern in patterns)] == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_test_file_is_without_a_check(path: Path) -> None:
    """A test function checks something: an assert, a `pytest.raises`, or a helper whose name says that it checks."""
    empty = []
    for node in ast.walk(tree(path)):
        if isinstance(node, Function) and node.name.startswith("test_"):
            words = ast.unparse(node)
            if not any(word in words for word in ("assert", "raises", "check", "expect", "skip")):
                empty.append(place(path, node))
    assert empty == []


def test_the_checkers_hold_what_the_design_asks() -> None:
    """ruff and pyright keep the rest; loosening them shows here."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    rules = set(tools["ruff"]["lint"]["select"])
    assert {"C90", "S101", "T20", "BLE", "E", "F", "ANN", "D1", "B", "PL"} <= rules
    assert tools["ruff"]["lint"]["mccabe"]["max-complexity"] <= COMPLEXITY
    exempt = {pattern for pattern, codes in tools["ruff"]["lint"]["per-file-ignores"].items() if "C901" in codes}
    assert exempt <= {"traiNNer/archs/**"}
    assert {"traiNNer/config", "traiNNer/utils", "traiNNer/trainer.py", "traiNNer/training_automations"} <= set(
        tools["pyright"]["strict"]
    )
