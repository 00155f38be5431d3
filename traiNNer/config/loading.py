"""From an option file to checked options, or to a report of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pydantic

from traiNNer.config.automations import settle_automations
from traiNNer.config.checks import Purpose, check, notices, purpose_of
from traiNNer.config.component_maps import replace_from, spread
from traiNNer.config.filling import fill
from traiNNer.config.loss_schedulers import settle
from traiNNer.config.options import Options
from traiNNer.config.reading import parse, read_file
from traiNNer.config.renames import rename
from traiNNer.config.tree import Node, problem_at, put
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.schema import MISSING, problems_of, without_consequences

COMMAND_LINE = "command line"


def load_options(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    purpose: Purpose | None = None,
    components: Path | None = None,
) -> Options:
    """Read and check an option file. Nothing is written; folders, weights and devices are not looked at.

    Args:
        path: a YAML file.
        overrides: options that the command line sets, by key path (`name`, `path.resume_state`); None counts as not
            given. `debug: true` makes it a debug run: `debug_` goes before the name.
        purpose: what the options are for; training demands train, logger and datasets.train. Default: training, unless
            the file has test sets and neither train nor datasets.train.
        components: a JSON or YAML file with `optimizers` and `schedulers` that replace those of the networks it names.

    Returns:
        The resolved options. They do not change.

    Raises:
        ConfigError: with every mistake of the file, each with file, line and key.
    """
    file = str(path)
    text = read_file(Path(path))
    tree, problems = parse(text, file)
    notes: list[Problem] = []
    problems += rename(tree, notes)
    problems += spread(tree)
    if components is not None:
        problems += replace_from(tree, components)
    _override(tree, dict(overrides or {}), notes)
    problems += fill(tree, notes)
    problems += settle(tree, notes)
    problems += settle_automations(tree, notes)
    data = tree.plain()
    found = check(data, purpose or purpose_of(data))
    notes += [_at(tree, problem) for problem in notices(data)]
    try:
        options = Options.checked(tree, text=text, notices=tuple(map(str, _in_order(notes))))
    except pydantic.ValidationError as error:
        found = [*problems_of(error, _accepted, data), *found]
    else:
        if not problems and not found:
            return options
    raise ConfigError(_report(tree, problems, found))


def _override(tree: Node, overrides: dict[str, Any], notes: list[Problem]) -> None:
    """Write the command line's values into the tree, and those of a debug run."""
    debug = overrides.pop("debug", False)
    for key, value in overrides.items():
        if value is not None:
            put(tree, key, value, line=None, file=COMMAND_LINE)
    name = tree.section.get("name")
    if name is None or not isinstance(name.value, str):
        return
    if debug and "debug" not in name.value:
        name.value = f"debug_{name.value}"
    if "debug" in name.value:
        for key, value in _DEBUG_VALUES.items():
            section, _, option = key.partition(".")
            if tree.section.get(section) is not None and tree.section[section].section:
                put(tree, f"{section}.{option}", value, line=None, file="debug run")
        shown = ", ".join(f"{key} {value}" for key, value in _DEBUG_VALUES.items())
        notes.append(name.problem(f"a debug run: {shown}"))


_DEBUG_VALUES = {"val.val_freq": 8, "logger.print_freq": 1, "logger.save_checkpoint_freq": 8}
"""What a name with debug in it means, as in BasicSR and traiNNer-redux."""


def _accepted(location: tuple[int | str, ...]) -> Sequence[str]:
    """The keys of the section that a location lies in."""
    model: type[pydantic.BaseModel] = Options
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        model = model if field is None else next(_models(field.annotation), model)
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """The sections that a field may hold, also within a list."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _at(tree: Node, problem: Problem) -> Problem:
    return problem_at(tree, problem.key, problem.message)


def _report(tree: Node, at_nodes: Iterable[Problem], by_key: Iterable[Problem]) -> list[Problem]:
    """All problems with file and line, in the file's order; one a place, what was found first."""
    first = without_consequences(at_nodes)
    settled = {problem.key for problem in first}
    later = [problem for problem in (_at(tree, each) for each in by_key) if problem.key not in settled]
    scale = next((problem for problem in later if problem.key == "scale"), None)

    def is_consequence(problem: Problem) -> bool:
        """Sections take over the scale, or have none where the file has none."""
        if scale is None or not problem.key.endswith(".scale"):
            return False
        return problem.message.startswith(MISSING) or problem.line == scale.line

    return _in_order(without_consequences([*first, *(each for each in later if not is_consequence(each))]))


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    place: Callable[[Problem], tuple[str, int]] = lambda problem: (problem.file or "", problem.line or 0)  # noqa: E731
    return sorted(problems, key=place)
