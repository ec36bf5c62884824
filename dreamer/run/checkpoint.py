"""Saves and restores a run: train state, other arrays, replay, counters.

`<logdir>/ckpt/<policy steps>/` is a checkpoint (see archive.py), and
`<logdir>/replay/` holds the replay's steps (see ../replay/disk.py).  The
directory of a checkpoint gets its name when all is written and synced, so a
killed run leaves the one before.  Files of the replay never change and may
belong to several checkpoints, so that saving costs what is new.  Next:
archive.py.
"""

import contextlib
import copy
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import jax

from dreamer.agent.agent import TrainState
from dreamer.replay import Damaged, Replay, collect_garbage, files, listed
from dreamer.replay.background import Background
from dreamer.run import archive
from dreamer.run.archive import Arrays

KEEP = 2  # newest checkpoints
REPLACED = ".replaced"  # counts until one of the same step has its name
_NAME = re.compile(rf"(0|[1-9][0-9]{{0,17}})(\{REPLACED}|\.tmp|\.old\.tmp)?")
QUEUE_BYTES = 4 * 2**30  # copied and not yet written, at most


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
    return path if path.exists() else path.with_suffix(REPLACED)


class Checkpoints:
    """The checkpoints of one logdir, which nothing touches before a `save`.

    Args:
      logdir: of the run; need not exist.
      settings: of the run, as in its config.yaml; each checkpoint carries
        them, so that it can be used alone.
      leader: of several processes, the logdir of the one that saves the train
        state for all; this one reads it there and saves only what is its own.

    Attributes:
      saved: policy steps of the newest checkpoint known to be complete.
      error: why the newest attempt to save failed, if it did.
      paused: seconds for which `save` has held up its callers so far.
      reports: a line for each checkpoint that `restore` found damaged.

    Raises:
      ValueError: the directory of checkpoints cannot be read.
    """

    def __init__(
        self, logdir: Path, settings: str = "", leader: Path | None = None
    ) -> None:
        self._directory = logdir / "ckpt"
        self._leader = leader / "ckpt" if leader else None
        self._settings = settings
        self._replay_directory = logdir / "replay"
        self._background = Background(QUEUE_BYTES)
        self._writing: Future[None] | None = None
        self._superseded: set[int] = set()  # damaged ones, newer than ours
        self._tidy = False  # whether no attempt left anything behind
        self.error: OSError | None = None
        self.paused = 0.0
        self.reports: list[str] = []
        self.saved = self.latest

    @property
    def latest(self) -> int | None:
        """Policy steps of the newest checkpoint, if there is one."""
        return max(self.newest, default=None)

    @property
    def newest(self) -> list[int]:
        """Policy steps of the newest `KEEP`, in rising order."""
        try:
            return sorted(saved_steps(self._directory))[-KEEP:]
        except OSError as error:
            raise ValueError(
                f"{self._directory}: cannot read it ({error.strerror})"
            ) from error

    def save(
        self,
        policy_steps: int,
        state: TrainState,
        replay: Replay,
        arrays: Arrays,
        counters: dict[str, Any],
    ) -> None:
        """Copies everything to the host; a thread writes it meanwhile.

        All arguments may change or be donated as soon as this returns.  It
        waits for the save before, and for the disk where more than
        `QUEUE_BYTES` are new.  If a file cannot be written, that becomes
        `error`, checkpoints that are complete stay so, what was written of
        this one is removed, and the next call tries again.

        Args:
          policy_steps: names the checkpoint.
          state: on the device; not looked at where a leader saves it.
          replay: its new and changed chunks are written.
          arrays: any others, by owner and name.
          counters: JSON-able state of everything else.

        Raises:
          Exception: whatever else than an OSError ended the save before.
        """
        began = time.monotonic()
        try:
            self.wait()
            self._hand_over(policy_steps, state, replay, arrays, counters)
        finally:
            self.paused += time.monotonic() - began

    def wait(self) -> None:
        """Waits until nothing is being written.  Raises what `save` does."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def restore(
        self,
        like: TrainState,
        replay: Replay,
        place: Callable[[TrainState], TrainState] = jax.device_put,
        only: int | None = None,
    ) -> tuple[TrainState, Arrays, dict[str, Any]]:
        """Reads the newest checkpoint that is whole.

        Where none is, because a file of the replay that all share is
        damaged, the newest is used without that file's steps and all that
        are older.  `reports` tells what was damaged and what was used.

        Args:
          like: a state of the right shapes; its values are not used.
          replay: empty; filled here.
          place: puts a state of host arrays on the devices.
          only: policy steps of the one to use, if others will not do.

        Returns:
          The train state, the other arrays and the counters, as saved.

        Raises:
          ValueError: one line.  There is none or none is usable; or one was
            written by another version of this format, by an agent of other
            sizes or with another replay, which none of the others replaces.
        """
        faults: dict[int, str] = {}
        found = sorted(saved_steps(self._directory), reverse=True)
        wanted = found if only is None else [only]
        for salvage in (False, True):
            for step in wanted:
                try:
                    *restored, lost = self._read(step, like, replay, salvage)
                    restored[0] = place(restored[0])
                except Damaged as error:
                    faults.setdefault(step, str(error))
                    continue
                self._superseded = {x for x in found if x > step}
                self.saved = step
                self.reports = [
                    f"checkpoint {x} is damaged ({fault}); checkpoint {step}"
                    " is used instead"
                    if x != step
                    else f"checkpoint {step} is damaged ({fault}); it is used"
                    f" without the oldest {lost} steps of its replay"
                    for x, fault in faults.items()
                ]
                return tuple(restored)
        damage = "; ".join(f"{x} ({fault})" for x, fault in faults.items())
        raise ValueError(
            f"{self._directory}: no checkpoint is whole: {damage}"
            if damage
            else f"{self._directory}: there is no checkpoint"
        )

    def close(self) -> None:
        """Waits for what is being written.  Raises what `save` does."""
        try:
            self.wait()
        finally:
            self._background.close()

    def _hand_over(
        self,
        policy_steps: int,
        state: TrainState,
        replay: Replay,
        arrays: Arrays,
        counters: dict[str, Any],
    ) -> None:
        groups = dict(arrays)
        if self._leader is None:
            groups["state"] = archive.leaves(state)
        specs = {owner: files.spec_of(x) for owner, x in groups.items()}
        folder = self._directory / f"{policy_steps}.tmp"
        put = self._background.put
        self._background.begin()
        # The replay looks which files there are, so wait for the tidying.
        wait([put(0, dict, lambda _: self._prepare(folder))])
        written = {
            owner: put(
                files.file_size(specs[owner]),
                partial(archive.copies, group),
                partial(files.write_arrays, archive.file_of(folder, owner)),
            )
            for owner, group in groups.items()
        }
        manifest = replay.snapshot(self._replay_directory, put)
        counters = copy.deepcopy(counters)

        def meta() -> dict[str, Any]:
            return {
                "counters": counters,
                "config": self._settings,
                "replay": manifest(),
                "files": {
                    owner: archive.entry(spec, written[owner].result())
                    for owner, spec in specs.items()
                },
            }

        finish = partial(self._finish, policy_steps, folder, meta)
        self._writing = self._background.last(finish)

    # What follows until `_sweep` runs in the background.

    def _prepare(self, folder: Path) -> None:
        """Makes room."""
        for directory in (self._directory, self._replay_directory):
            files.make_directory(directory)
        if not self._tidy:
            self._sweep()
        self._tidy = False
        folder.mkdir()

    def _finish(
        self, policy_steps: int, folder: Path, meta: Callable[[], Any]
    ) -> None:
        """Makes a checkpoint of what was written, or nothing."""
        try:
            archive.write_meta(folder, meta())
            files.sync_directory(folder)
            target = self._directory / str(policy_steps)
            if target.exists():
                target.rename(target.with_suffix(REPLACED))
            folder.rename(target)
            files.sync_directory(self._directory)
            self.saved = policy_steps
            found = saved_steps(self._directory)
            self._retire(self._superseded & found - {policy_steps})
            self._superseded = set()
            self._retire(sorted(saved_steps(self._directory))[:-KEEP])
            self._sweep()
            self.error = None
        except OSError as error:
            self.error = error.with_traceback(None)
            with contextlib.suppress(OSError):
                self._sweep()

    def _retire(self, retired: Iterable[int]) -> None:
        """Takes checkpoints out of the list, whole; a sweep deletes them."""
        for step in retired:
            path = folder_of(self._directory, step)
            path.rename(self._directory / f"{step}.old.tmp")

    def _sweep(self) -> None:
        """Deletes what belongs to no checkpoint.  Nothing is being written."""
        for path in self._directory.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None or match[2] is None:
                continue
            if match[2] == REPLACED and not path.with_suffix("").exists():
                continue  # killed in between: it still counts
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
        # Nobody knows what a damaged one refers to: then keep all.
        with contextlib.suppress(ValueError):
            kept = [
                folder_of(self._directory, x)
                for x in saved_steps(self._directory)
            ]
            metas = [archive.read_meta(path) for path in kept]
            names = [listed(meta["replay"]) for meta in metas]
            collect_garbage(self._replay_directory, set().union(*names))
        self._tidy = True

    def _read(
        self, step: int, like: TrainState, replay: Replay, salvage: bool
    ) -> tuple[TrainState, Arrays, dict[str, Any], int]:
        """One checkpoint, and how many steps of its replay are lost.

        Raises:
          Damaged: the replay is still empty.
          ValueError: none of the others is to be used either.
        """
        path = folder_of(self._directory, step)
        meta = archive.read_meta(path)
        if self._leader is None:
            state, arrays = archive.read_arrays(path, meta, like)
        else:
            theirs = folder_of(self._leader, step)
            shared = archive.read_meta(theirs)
            state, _ = archive.read_arrays(theirs, shared, like)
            arrays = archive.read_others(path, meta)
        lost = replay.load(self._replay_directory, meta["replay"], salvage)
        return state, arrays, meta["counters"], lost
