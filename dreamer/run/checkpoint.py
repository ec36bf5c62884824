"""Saves and restores a run: train state, replay, counters.

`<logdir>/ckpt/<policy steps>/` holds what Orbax writes: the train state, the
batch that was prepared but not trained on, and a JSON file with the counters
and the replay's manifest.  Orbax renames a checkpoint into place when it is
whole, so a killed run leaves the one before.  The replay's steps lie in
`<logdir>/replay/`, in files that never change once written; the manifest
names those that belong to a checkpoint, so saving costs what is new.
Next: ../replay/disk.py for those files.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from dreamer.agent.agent import TrainState
from dreamer.replay import Replay, collect_garbage

FORMAT = 1  # of the counters; the replay's manifest has its own
KEEP = 2  # newest checkpoints


class Checkpoints:
    """The checkpoints of one logdir, which nothing touches before a `save`.

    Args:
      logdir: of the run; need not exist.
    """

    def __init__(self, logdir: Path) -> None:
        logging.getLogger("absl").setLevel(logging.WARNING)
        self._directory = logdir / "ckpt"
        self._replay_directory = logdir / "replay"
        options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, create=False)
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._saved = False

    @property
    def latest(self) -> int | None:
        """Policy steps of the newest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    def save(
        self,
        policy_steps: int,
        state: TrainState,
        replay: Replay,
        pending: dict[str, Any] | None,
        counters: dict[str, Any],
    ) -> None:
        """Copies everything off the device and writes it in the background.

        Args:
          policy_steps: names the checkpoint.
          state: may be donated as soon as this returns.
          replay: what is new in it is written before this returns.
          pending: the learner's prepared batch.
          counters: JSON-able state of everything else.

        Raises:
          OSError: the disk is full or not writable.
        """
        self._manager.wait_until_finished()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._collect_garbage()
        self._saved = True
        meta = {
            "format": FORMAT,
            "counters": counters,
            "replay": replay.save(self._replay_directory),
            "pending": pending is not None,
        }
        items = {
            "state": ocp.args.StandardSave(state),
            "meta": ocp.args.JsonSave(meta),
        }
        if pending is not None:
            items["pending"] = ocp.args.StandardSave(pending)
        args = ocp.args.Composite(**items)
        self._manager.save(policy_steps, args=args, force=True)

    def restore(
        self, like: TrainState, replay: Replay
    ) -> tuple[TrainState, dict[str, Any] | None, dict[str, Any]]:
        """Reads the newest checkpoint.

        Args:
          like: a state of the right shapes; its values are not used.
          replay: empty; filled here.

        Returns:
          The train state, the prepared batch (NumPy) and the counters, as
          saved.

        Raises:
          ValueError: there is none, it was written by another version of
            this format or by an agent of other sizes, or it is damaged.
        """
        step = self.latest
        if step is None:
            raise ValueError(f"{self._directory}: there is no checkpoint")
        path = self._directory / str(step)
        try:
            meta = self._meta(step)
            version = meta["format"]
        except Exception as error:
            raise _damaged(path, error) from error
        if version != FORMAT:
            raise ValueError(
                f"{path}: this checkpoint has format {version}, and this"
                f" version reads format {FORMAT}"
            )
        replay.load(self._replay_directory, meta["replay"])
        # To the host: arrays that Orbax puts on a device are bound to it,
        # and the update would be compiled anew for them.
        host = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        items = {"state": ocp.args.StandardRestore(host)}
        if meta["pending"]:
            items["pending"] = ocp.args.StandardRestore()
        args = ocp.args.Composite(**items)
        try:
            restored = self._manager.restore(step, args=args)
            jax.tree.map(_check_shape, restored.state, host)
        except Exception as error:
            raise _damaged(path, error) from error
        state = jax.device_put(restored.state)
        return state, restored.get("pending"), meta["counters"]

    def close(self) -> None:
        """Waits for what is being written; removes what it replaces."""
        try:
            self._manager.wait_until_finished()
            if self._saved:
                self._collect_garbage()
                self._saved = False
        finally:
            self._manager.close()

    def _meta(self, step: int) -> dict[str, Any]:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args).meta

    def _collect_garbage(self) -> None:
        """Deletes replay files of checkpoints that are gone.

        Also what a killed run left of a checkpoint that it was writing.
        Call it while none is being written.
        """
        for path in self._directory.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
            shutil.rmtree(path)
        if not self._replay_directory.exists():
            return
        steps = self._manager.all_steps()
        try:
            manifests = [self._meta(step)["replay"] for step in steps]
        except Exception:
            return  # nobody knows what a damaged one refers to: keep all
        collect_garbage(self._replay_directory, manifests)


def _check_shape(restored: np.ndarray, like: np.ndarray) -> None:
    if restored.shape != like.shape:
        raise ValueError(f"shape {restored.shape}, here {like.shape}")


def _damaged(path: Path, error: Exception) -> ValueError:
    """Orbax raises whatever its parts raise, on many lines or none."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return ValueError(
        f"{path}: this checkpoint is damaged or not of this agent ({reason})"
    )
