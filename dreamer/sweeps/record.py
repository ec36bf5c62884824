"""`sweep.json`: the runs of a sweep's folder, and what was submitted.

    format     1
    runs       by name: "arguments" of dreamer.train without the logdir, and
               the "slot" of this machine that the run was last started in, or
               null
    jobs       submitted array jobs: "id", and "runs" by index
    manifests  written for Kubernetes: "file", and "runs"

Commands add runs to it; a run keeps its settings, but for those that may
change when a run goes on. Whoever writes it holds the folder's lock. Next:
standing.py, for how the runs are doing.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dreamer.config import Config
from dreamer.options import ConfigError
from dreamer.run import lock
from dreamer.settings import check_resume, load
from dreamer.sweeps.grid import Run
from dreamer.whole import write_whole

FILE = "sweep.json"
FORMAT = 1


@dataclass
class Entry:
    """What is kept of a run."""

    arguments: list[str]
    slot: int | None = None


@dataclass
class Job:
    """An array job: its number, and the names of its runs by index."""

    id: str
    runs: list[str]


@dataclass
class Manifest:
    """What was written for Kubernetes: its file, and the names of its runs."""

    file: str
    runs: list[str]


@dataclass
class Record:
    """The contents of the file in a sweep's folder."""

    folder: Path
    runs: dict[str, Entry] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)

    def add(self, runs: Iterable[Run]) -> None:
        """Adds runs, or their new settings where those may change."""
        for run in runs:
            entry = self.runs.setdefault(run.name, Entry([]))
            entry.arguments = list(run.arguments)

    @property
    def submitted(self) -> int:
        """How often runs were given to a cluster."""
        return len(self.jobs) + len(self.manifests)

    def write(self) -> None:
        """Writes the file, all of it or nothing.

        Raises:
          OSError: the disk does not take it.
        """
        values = {
            "format": FORMAT,
            "runs": {name: asdict(x) for name, x in self.runs.items()},
            "jobs": [asdict(job) for job in self.jobs],
            "manifests": [asdict(x) for x in self.manifests],
        }
        text = json.dumps(values, indent=1) + "\n"
        write_whole(self.folder / FILE, text)


def read(folder: Path) -> Record:
    """The record of a folder, which is empty where there is none.

    Raises:
      ConfigError: the file is not as expected.
      OSError: it cannot be read.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != FORMAT:
            raise ConfigError(f"{path}: expected format {FORMAT}")
        runs = {x: Entry(**entry) for x, entry in values["runs"].items()}
        jobs = [Job(**job) for job in values["jobs"]]
        written = [Manifest(**x) for x in values.get("manifests", [])]
        known = all(_is_entry(x, entry) for x, entry in runs.items())
        given = [*jobs, *written]
        if not known or not all(set(x.runs) <= set(runs) for x in given):
            raise ValueError
        if any(Path(x.file).name != x.file for x in written):
            raise ValueError
    except FileNotFoundError:
        return Record(folder)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{path}: is not as a sweep writes it") from None
    return Record(folder, runs, jobs, written)


def _is_entry(name: Any, entry: Entry) -> bool:
    """A name that leads out of the folder is none of a sweep's."""
    words = isinstance(entry.arguments, list) and all(
        isinstance(word, str) for word in entry.arguments
    )
    return words and "/" not in name and not name.startswith(".")


def check(record: Record, runs: Iterable[Run]) -> None:
    """Sees that every run may go on where it, or another one, began.

    Raises:
      ConfigError: a run has other settings, in a line that names all of them;
        or is there already, by another name.
      OSError: settings of a run cannot be read.
    """
    runs = list(runs)
    for run in runs:
        entry = record.runs.get(run.name)
        planned = entry.arguments if entry else list(run.arguments)
        began = Path(run.config.logdir) / "config.yaml"
        if began.exists() or planned != list(run.arguments):
            check_resume(_settings(record, run.name, planned), run.config)
    _check_twins(record, [x for x in runs if x.name not in record.runs])


def _check_twins(record: Record, new: Iterable[Run]) -> None:
    """What a name says depends on the command, see grid.py."""
    names = {_but_for_logdir(x.config): x.name for x in new}
    for name, entry in record.runs.items() if names else ():
        try:
            found = _settings(record, name, entry.arguments)
        except ConfigError:  # of files that are gone: nobody knows
            continue
        if twin := names.get(_but_for_logdir(found)):
            raise ConfigError(
                f"{twin}: is the same run as {name}, which {record.folder} has"
                " already; leave it out, or take another --logdir"
            )


def _settings(record: Record, name: str, planned: Iterable[str]) -> Config:
    """Those that a run began with, or else is to begin with."""
    logdir = record.folder / name
    began = logdir / "config.yaml"
    words = ["--configs", str(began)] if began.exists() else planned
    # That in the file may be out of reach, if the folder was moved.
    return load([*words, "--logdir", str(logdir)])


def _but_for_logdir(config: Config) -> Config:
    return replace(config, logdir=Config().logdir)


def missing(folder: Path) -> list[Path]:
    """What a first command makes and is not there yet, inner ones first."""
    made = [folder / FILE, folder / lock.FILE, folder, *folder.parents]
    return [path for path in made if not path.exists()]


def undo(before: Record, new: Iterable[Path]) -> None:
    """Takes back what a command wrote that came to nothing.

    Of a folder with runs it deletes nothing, whoever made it.

    Args:
      before: Record as the command found it.
      new: Paths that were missing then. The caller still holds the folder's
        lock.
    """
    if before.runs:
        with suppress(OSError):
            before.write()
        return
    for path in new:
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def hold(folder: Path) -> lock.Lock:
    """Locks the folder, made if missing, for one command at a time.

    Raises:
      ConfigError: another one has it; in a line that says which.
      OSError: it cannot be written.
    """
    return lock.acquire(folder, "sweep")
