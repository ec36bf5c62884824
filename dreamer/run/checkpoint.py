"""Saves and restores a run: train state, other arrays, replay, counters.

`<logdir>/ckpt/<policy steps>/` is a checkpoint (see archive.py), and
`<logdir>/replay/` holds the replay's steps (see ../replay/disk.py).  The
directory of a checkpoint gets its name when all is written and synced, so a
killed run leaves the one before.  Files of the replay never change and may
belong to several checkpoints, so that saving costs what is new.  Next:
shelf.py, which ones stay; archive.py.
"""

import contextlib
import copy
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dreamer.agent.agent import TrainState
from dreamer.options import ConfigError
from dreamer.replay import Damaged, Replay, files
from dreamer.replay.background import Background
from dreamer.run import archive, lock
from dreamer.run.archive import Arrays
from dreamer.run.peers import ALONE, Peers
from dreamer.run.shelf import Shelf, folder_of

QUEUE_BYTES = 4 * 2**30  # copied and not yet written, at most


class Checkpoints:
    """The checkpoints of one logdir, which nothing touches before a `save`.

    Args:
      logdir: of the run; need not exist.
      settings: of the run, as in its config.yaml; each checkpoint carries
        them, so that it can be used alone.
      leader: of several processes, the logdir of the one that saves the train
        state for all; this one reads it there and saves only what is its own.

    Attributes:
      error: why the newest attempt to save failed, if it did.
      paused: seconds for which `save` has held up its callers so far.
      reports: a line for each checkpoint that `restore` found damaged.

    Raises:
      ConfigError: the directory of checkpoints cannot be read.
    """

    def __init__(
        self, logdir: Path, settings: str = "", leader: Path | None = None
    ) -> None:
        self._shelf = Shelf(logdir)
        self._lock = logdir / lock.FILE
        self._leader = leader / "ckpt" if leader else None
        self._settings = settings
        self._background = Background(QUEUE_BYTES)
        self._writing: Future[None] | None = None
        self.error: OSError | None = None
        self.paused = 0.0
        self.reports: list[str] = []

    @property
    def latest(self) -> int | None:
        """Policy steps of the newest checkpoint there now, if there is one."""
        return max(self._shelf.look(), default=None)

    @property
    def complete(self) -> frozenset[int]:
        """Policy steps of those known to be complete, and of this run."""
        return self._shelf.complete

    @property
    def saved(self) -> int | None:
        """Policy steps of the newest of `complete`."""
        return max(self.complete, default=None)

    def save(
        self,
        policy_steps: int,
        state: TrainState | None,
        replay: Replay,
        arrays: Arrays,
        counters: dict[str, Any],
        keep: int | None = None,
    ) -> None:
        """Copies everything to the host; a thread writes it meanwhile.

        All arguments may change or be donated as soon as this returns.  It
        waits for the save before, and for the disk where more than
        `QUEUE_BYTES` are new.  If a file cannot be written, that becomes
        `error`, checkpoints that are complete stay so, what was written of
        this one is removed, and the next call tries again.

        Args:
          policy_steps: names the checkpoint.
          state: the train state on the device; None where a leader saves it.
          replay: its new and changed chunks are written.
          arrays: any others, by owner and name.
          counters: JSON-able state of everything else.
          keep: policy steps of a checkpoint that is to stay, beside the newest
            `shelf.KEEP`.

        Raises:
          Exception: whatever else than an OSError ended the save before.
        """
        began = time.monotonic()
        try:
            self.wait()
            self._hand_over(
                policy_steps, state, replay, arrays, counters, keep
            )
        finally:
            self.paused += time.monotonic() - began

    def wait(self) -> None:
        """Waits until nothing is being written.  Raises what `save` does."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def common(self, peers: Peers) -> list[int]:
        """The checkpoints to go on from, newest first; none: a run begins.

        Of several processes, all ask together. Where they were killed before
        all of them had one, those that some have do not count.

        Raises:
          ConfigError: these processes cannot use what there is.
        """
        found = self._shelf.look()
        common = peers.common(found, began=self._lock.exists())
        if found and not common:
            self._shelf.go_back(-1)
            self.reports.append(
                f"checkpoint {max(found)} is not of all processes, which were"
                " killed when they wrote their first: the run begins anew"
            )
        return common

    def restore(
        self,
        like: TrainState,
        replay: Replay,
        place: Callable[[TrainState], TrainState] = jax.device_put,
        peers: Peers = ALONE,
    ) -> tuple[TrainState, Arrays, dict[str, Any]]:
        """Reads the newest checkpoint that is whole.

        Where none is, because a file of the replay that all share is
        damaged, the newest is used without that file's steps and all that
        are older.  `reports` tells what was damaged and what was used.

        Args:
          like: shapes and dtypes of a state, in arrays or in place of them.
          replay: empty; filled here.
          place: puts a state of host arrays on the devices.
          peers: of several processes, all restore together, and use the
            newest checkpoint that is whole for each of them.

        Returns:
          The train state, the other arrays and the counters, as saved.

        Raises:
          ConfigError: one line.  There is none or none is usable; or one was
            written by another version of this format, by an agent of other
            sizes or with another replay, which none of the others replaces.
        """
        faults: dict[int, str] = {}
        wanted = self.common(peers)
        for salvage in (False, True):
            for step in wanted:
                try:
                    state, arrays, counters, lost = self._read_together(
                        step, like, replay, salvage, peers
                    )
                except Damaged as error:
                    faults.setdefault(step, str(error))
                    continue
                self._shelf.go_back(step)
                self.reports = [
                    f"checkpoint {x} is damaged ({fault}); checkpoint {step}"
                    " is used instead"
                    if x != step
                    else f"checkpoint {step} is damaged ({fault}); it is used"
                    f" without the oldest {lost} steps of its replay"
                    for x, fault in faults.items()
                ]
                return place(state), arrays, counters
        damage = "; ".join(f"{x} ({fault})" for x, fault in faults.items())
        raise ConfigError(
            f"{self._shelf.directory}: no checkpoint is whole: {damage}"
            if damage
            else f"{self._shelf.directory}: there is no checkpoint"
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
        state: TrainState | None,
        replay: Replay,
        arrays: Arrays,
        counters: dict[str, Any],
        keep: int | None,
    ) -> None:
        groups = dict(arrays)
        if self._leader is None:
            groups["state"] = archive.leaves(state)
        specs = {owner: files.spec_of(x) for owner, x in groups.items()}
        folder = self._shelf.directory / f"{policy_steps}.tmp"
        put = self._background.put
        self._background.begin()
        # The replay looks which files there are, so wait for the tidying.
        wait([put(0, dict, lambda _: self._shelf.prepare(folder))])
        written = {
            owner: put(
                files.file_size(specs[owner]),
                partial(archive.copies, group),
                partial(files.write_arrays, archive.file_of(folder, owner)),
            )
            for owner, group in groups.items()
        }
        manifest = replay.snapshot(self._shelf.replay, put)
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

        finish = partial(self._finish, policy_steps, folder, meta, keep)
        self._writing = self._background.last(finish)

    def _finish(
        self,
        policy_steps: int,
        folder: Path,
        meta: Callable[[], Any],
        keep: int | None,
    ) -> None:
        """Makes a checkpoint of what was written, or nothing; in a thread."""
        try:
            archive.write_meta(folder, meta())
            self._shelf.add(folder, policy_steps, keep)
            self.error = None
        except OSError as error:
            self.error = error.with_traceback(None)
            with contextlib.suppress(OSError):
                self._shelf.sweep()

    def _read_together(
        self,
        step: int,
        like: TrainState,
        replay: Replay,
        salvage: bool,
        peers: Peers,
    ) -> tuple[TrainState, Arrays, dict[str, Any], int]:
        """As `_read`, where one process's trouble is that of all."""
        damage: Damaged | None = None
        refusal: ConfigError | None = None
        lost = 0
        try:
            *restored, lost = self._read(step, like, replay, salvage)
        except Damaged as error:
            damage = error
        except ConfigError as error:
            refusal = error
        damaged = peers.who(damage is not None)
        refusing = peers.who(refusal is not None)
        most = int(peers.gather(np.array(lost)).max())
        if refusing:
            raise refusal or ConfigError(
                f"{self._shelf.folder(step)}: process {refusing[0]} cannot"
                " use its part of this checkpoint"
            )
        if damaged:
            if damage is None:
                replay.clear()
            raise damage or Damaged(f"the part of process {damaged[0]}")
        replay.forget(most - lost)  # they draw in step, from as many
        return *restored, most

    def _read(
        self, step: int, like: TrainState, replay: Replay, salvage: bool
    ) -> tuple[TrainState, Arrays, dict[str, Any], int]:
        """One checkpoint, and how many steps of its replay are lost.

        Raises:
          Damaged: the replay is still empty.
          ConfigError: none of the others is to be used either.
        """
        path = self._shelf.folder(step)
        meta = archive.read_meta(path)
        whose, shared = path, meta
        if self._leader is not None:
            whose = folder_of(self._leader, step)
            shared = archive.read_meta(whose)
        state = archive.read_state(whose, shared, like)
        arrays = archive.read_others(path, meta)
        lost = replay.load(self._shelf.replay, meta["replay"], salvage)
        return state, arrays, meta["counters"], lost
