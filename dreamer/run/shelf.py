"""The folder of a run's checkpoints: which there are, and which go.

`<logdir>/ckpt/<policy steps>/` is a checkpoint (see archive.py).  It gets
this name when all of it is on disk, and loses it before anything of it is
deleted, so that a killed run leaves whole ones.  Next: checkpoint.py, which
writes and reads them.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from dreamer.options import ConfigError
from dreamer.replay import collect_garbage, files, listed
from dreamer.run import archive
from dreamer.trouble import PassingError, may_pass

KEEP = 2  # newest checkpoints
REPLACED = ".replaced"  # counts until one of the same step has its name
_NAME = re.compile(rf"(0|[1-9][0-9]{{0,17}})(\{REPLACED}|\.tmp|\.old\.tmp)?")


def saved_steps(directory: Path) -> set[int]:
    """Policy steps of the complete checkpoints in `<logdir>/ckpt`.

    Raises:
      OSError: it cannot be read.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return set()
    found = [match for match in map(_NAME.fullmatch, names) if match]
    return {int(x[1]) for x in found if x[2] in (None, REPLACED)}


def folder_of(directory: Path, policy_steps: int) -> Path:
    """Where one of them is."""
    path = directory / str(policy_steps)
    # A link that leads nowhere is one too, if not one that can be used.
    return path if os.path.lexists(path) else path.with_suffix(REPLACED)


class Shelf:
    """The checkpoints of one logdir and the replay files they refer to.

    Args:
      logdir: of the run; need not exist.

    Attributes:
      directory: of the checkpoints.
      replay: directory of the replay's files.
      complete: policy steps of the checkpoints known to be complete, without
        those that the run went back behind.

    Raises:
      ConfigError: the directory cannot be read.
    """

    def __init__(self, logdir: Path) -> None:
        self.directory = logdir / "ckpt"
        self.replay = logdir / "replay"
        self._superseded: set[int] = set()  # newer than the run is
        self._tidy = False  # whether no attempt left anything behind
        self.complete = frozenset(self.look())

    def look(self) -> set[int]:
        """Policy steps of all that are there now.

        Raises:
          ConfigError: the directory cannot be read.
        """
        try:
            return saved_steps(self.directory)
        except OSError as error:
            kind = PassingError if may_pass(error) else ConfigError
            raise kind(
                f"{self.directory}: cannot read it ({error.strerror})"
            ) from error

    def folder(self, policy_steps: int) -> Path:
        """Where one of them is."""
        return folder_of(self.directory, policy_steps)

    def go_back(self, policy_steps: int) -> None:
        """Newer ones go as soon as another one is complete."""
        found = self.look()
        self._superseded = {x for x in found if x > policy_steps}
        self.complete = frozenset(found - self._superseded)

    def prepare(self, folder: Path) -> None:
        """Makes room for what is about to be written, and the folder.

        Raises:
          OSError: it cannot.
        """
        for directory in (self.directory, self.replay):
            files.make_directory(directory)
        if not self._tidy:
            self.sweep()
        self._tidy = False
        folder.mkdir()

    def add(self, folder: Path, policy_steps: int, keep: int | None) -> None:
        """Gives what was written its name, and removes what is too old.

        Args:
          folder: everything is in it.
          policy_steps: its name.
          keep: one that stays beside the newest `KEEP`, if it is there.

        Raises:
          OSError: not all of that was possible.
        """
        files.sync_directory(folder)
        target = self.directory / str(policy_steps)
        if os.path.lexists(target):
            target.rename(target.with_suffix(REPLACED))
        folder.rename(target)
        files.sync_directory(self.directory)
        self.complete |= {policy_steps}
        found = saved_steps(self.directory)
        self._retire(self._superseded & found - {policy_steps})
        self._superseded = set()
        older = sorted(saved_steps(self.directory))[:-KEEP]
        self._retire(x for x in older if x != keep)
        self.sweep()

    def _retire(self, retired: Iterable[int]) -> None:
        """Takes checkpoints out of the list, whole; a sweep deletes them."""
        for step in retired:
            self.folder(step).rename(self.directory / f"{step}.old.tmp")
            self.complete -= {step}

    def sweep(self) -> None:
        """Deletes what belongs to no checkpoint.  Nothing is being written.

        Raises:
          OSError: not all can be deleted.
        """
        for path in self.directory.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None or match[2] is None:
                continue
            if match[2] == REPLACED and not path.with_suffix("").exists():
                continue  # killed in between: it still counts
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
        # Nobody knows what a damaged one refers to: then keep all.
        with contextlib.suppress(ValueError):
            kept = [self.folder(x) for x in saved_steps(self.directory)]
            metas = [archive.read_meta(path) for path in kept]
            names = [listed(meta["replay"]) for meta in metas]
            collect_garbage(self.replay, set().union(*names))
        self._tidy = True
