"""Keeps the small files of finished runs, and draws them from those alone.

Of each run: scores.jsonl as it is, config.yaml without the place of the run,
the files of its evaluations, the agent if that is small, and versions.json,
which says what it was trained with and on, but not where. Read first:
reproduce.py.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import proof_figures
from prove import PROOFS

from dreamer import plot, status
from dreamer.config import Config
from dreamer.export import export, size_of, without_place
from dreamer.options import ConfigError
from dreamer.scores.evaluation_file import newest, read_evaluation
from dreamer.settings import load, to_yaml

CONFIG, SCORES, VERSIONS = "config.yaml", "scores.jsonl", "versions.json"
STARTS = "starts.jsonl"
AGENT = "agent"
LARGEST = 5_000_000  # bytes of an agent that is kept
# Of a start: no paths, hosts or jobs, which are nobody's business.
FIELDS = (
    "time",
    "policy_steps",
    "dreamer_version",
    "git_revision",
    "git_uncommitted_changes",
    "python_version",
    "operating_system",
    "cpu",
    "cpu_cores",
    "cpu_cores_usable",
    "ram_gib",
    "jax_backend",
    "devices",
    "device_runtime",
    "nvidia_driver",
    "package_versions",
)


def runs(folder: Path) -> list[Path]:
    """Folders of runs right below a folder, by name."""
    return sorted(x.parent for x in folder.glob(f"*/{CONFIG}"))


def unfinished(run: Path) -> str:
    """What keeps a run from being finished, '' if nothing does."""
    told = status.read(run) or {"state": "unfinished"}
    saved, steps = _saved(run), settings(run).run.steps
    if told["state"] == "done" or saved >= steps:
        return ""
    return f"{told['state']}, saved at policy step {saved:,} of {steps:,}"


def is_evaluated(run: Path, episodes: int) -> bool:
    """Whether the newest checkpoint's agent has played enough, as usual."""
    found = newest(map(read_evaluation, _evals(run)))
    return (
        found is not None
        and found.checkpoint >= _saved(run)
        and len(found.scores) >= episodes
    )


def _evals(run: Path) -> list[Path]:
    return sorted(run.glob("eval*.json"))


def _saved(run: Path) -> int:
    """Policy steps of the newest checkpoint, 0 if there is none."""
    names = [x.name for x in run.glob("ckpt/*") if x.name.isdecimal()]
    return max(map(int, names), default=0)


def settings(run: Path) -> Config:
    """Of a run.

    Raises:
      ConfigError: they are not in order.
    """
    return load(["--configs", str(run / CONFIG)])


def keep(run: Path, target: Path, benchmark: str) -> bool:
    """Copies what is small and matters; whether anything of it was new.

    Args:
      run: Folder of a finished run.
      target: Folder for the files; files that are the same stay untouched.
      benchmark: Benchmark that the run must be of.

    Raises:
      ConfigError: it is of another, or `target` is of other settings.
      OSError: something cannot be read or written.
    """
    config = without_place(settings(run))
    proofs = {x.task for x in PROOFS.values()}
    belongs = (
        config.task in proofs
        if benchmark == "proof"
        else (config.suite == "atari100k")
    )
    if not belongs:
        raise ConfigError(f"{run}: task={config.task} is not of {benchmark}")
    kept = (target / CONFIG).exists()
    if kept and without_place(settings(target)) != config:
        raise ConfigError(
            f"{target}: holds a run of other settings than {run}; --results"
            " takes another folder"
        )
    text = f"# All settings of one run: --configs {CONFIG}\n{to_yaml(config)}"
    starts = json.dumps(versions(run / STARTS), indent=1) + "\n"
    files = {
        CONFIG: text.encode(),
        SCORES: (run / SCORES).read_bytes(),
        VERSIONS: starts.encode(),
        **{x.name: x.read_bytes() for x in _evals(run)},
        **_agent(run),
    }
    names = {x.name for x in _evals(target)} - files.keys()
    for name in names:
        (target / name).unlink()  # of an earlier run
    fresh = bool(names)
    for name, content in files.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            fresh = True
    return fresh


def _agent(run: Path) -> dict[str, bytes]:
    """The agent's files by their names, if they are small enough."""
    if not _saved(run) or size_of(run) > LARGEST:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / AGENT
        export(run, place)
        return {f"{AGENT}/{x.name}": x.read_bytes() for x in place.iterdir()}


def versions(path: Path) -> list[dict[str, Any]]:
    """What each start of a run was made with; later ones, what changed.

    Raises:
      ConfigError: a line is no record of a start.
    """
    found: list[dict[str, Any]] = []
    last: Mapping[str, Any] = {}
    for line in path.read_text("utf-8").splitlines():
        try:
            start = json.loads(line)
            start = {key: start[key] for key in FIELDS if key in start}
        except (ValueError, TypeError):
            raise ConfigError(f"{path}: expected one start a line") from None
        always = ("time", "policy_steps")
        changed = {
            key: value
            for key, value in start.items()
            if key in always or key not in last or last[key] != value
        }
        found.append(changed)
        last = start
    return found


def draw_atari(results: Path) -> Iterator[str]:
    """Curves, averages and tables by dreamer.plot; lines for a person.

    Raises:
      SystemExit: something is not as it should be, in a line already said.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            plot.main([str(results), "--out", folder])
        place = f"{results.resolve()}/"
        for line in said.getvalue().splitlines():
            if not line.startswith("Written: "):
                yield line.replace(place, "")
        for path in sorted(Path(folder).iterdir()):
            content = path.read_bytes()
            if path.suffix == ".md":  # names runs by where they are
                content = content.replace(place.encode(), b"")
            if path.suffix != ".svg":  # large, and shows the same
                (results / path.name).write_bytes(content)
                yield f"Written: {results / path.name}"


def draw_proof(results: Path) -> Iterator[str]:
    """Learning curves of the small tasks, and a table of their scores."""
    found = proof_figures.read(results)
    for name, content in (
        ("proof.md", proof_figures.to_markdown(found).encode()),
        ("proof.csv", proof_figures.to_csv(found).encode()),
        ("proof-curves.png", proof_figures.learning_curves(found)),
    ):
        (results / name).write_bytes(content)
        yield f"Written: {results / name}"
