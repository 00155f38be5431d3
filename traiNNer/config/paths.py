"""Where a run writes: derived from the options, fixed for the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from traiNNer.config.options import Options


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """The folders of a run; none of them has to exist. `models` and `resume_models` may be the same one."""

    experiment: Path
    """The run's folder: `experiments_root`/name, or `experiments_root` itself if it ends in the name."""
    models: Path
    resume_models: Path
    training_states: Path
    log: Path
    """Folder of the text log."""
    visualization: Path
    samples: Path
    """Folder of the pictures of `val.samples_per_checkpoint`."""
    tb_logger: Path
    """Folder of the TensorBoard files."""
    results: Path
    """Folder of what test.py writes: `results_root`/name, or `results_root` itself if it ends in the name."""


def run_paths(options: Options) -> RunPaths:
    """The folders of a run, absolute or relative to the current directory as the file writes them."""
    path = options.path
    experiment = _under(path.experiments_root, "experiments", options.name)

    def folder(written: str | None, default: Path) -> Path:
        return default if written is None else Path(written).expanduser()

    return RunPaths(
        experiment=experiment,
        models=folder(path.models, experiment / "models"),
        resume_models=folder(path.resume_models, experiment / "resume_models"),
        training_states=folder(path.training_states, experiment / "training_states"),
        log=folder(path.log, experiment),
        visualization=folder(path.visualization, experiment / "visualization"),
        samples=experiment / "samples",
        tb_logger=experiment / "tb_logger",
        results=_under(path.results_root, "results", options.name),
    )


def _under(root: str | None, default: str, name: str) -> Path:
    folder = Path(root or default).expanduser()
    return folder if folder.name == name else folder / name
