"""Saves and restores a run: train state, replay, counters.

`<logdir>/ckpt/<policy steps>/` holds what Orbax writes: the train state, the
batch that was prepared but not trained on, and a JSON file with the counters
and the replay's manifest.  Orbax renames a checkpoint into place when it is
whole, so a killed run leaves the one before.  The replay's steps lie in
`<logdir>/replay/`, in files that never change once written; the manifest
names those that belong to a checkpoint, so saving costs what is new.
Next: replay/disk.py for those files.
"""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from dreamer.agent.agent import TrainState
from dreamer.replay import Replay, collect_garbage

FORMAT = 1  # of the counters; the replay's manifest has its own
KEEP = 2  # newest checkpoints


class Checkpoints:
    """The checkpoints of one logdir.

    Args:
      logdir: of the run.

    Raises:
      ValueError: the newest checkpoint was written by another version.
    """

    def __init__(self, logdir: Path) -> None:
        logging.getLogger("absl").setLevel(logging.WARNING)
        self._replay_dir = logdir / "replay"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(logdir / "ckpt", options=options)

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
        self._collect_garbage()
        meta = {
            "format": FORMAT,
            "counters": counters,
            "replay": replay.save(self._replay_dir),
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
          The train state, the prepared batch and the counters, as saved.

        Raises:
          ValueError: it was written by another version of this format, or
            by an agent of other sizes, or a replay file is damaged.
        """
        step = self.latest
        meta = self._meta(step)
        if meta["format"] != FORMAT:
            raise ValueError(
                f"checkpoint {step} has format {meta['format']}, this "
                f"version reads {FORMAT}"
            )
        replay.load(self._replay_dir, meta["replay"])
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = {"state": ocp.args.StandardRestore(abstract)}
        if meta["pending"]:
            items["pending"] = ocp.args.StandardRestore()
        restored = self._manager.restore(
            step, args=ocp.args.Composite(**items)
        )
        return restored.state, restored.get("pending"), meta["counters"]

    def close(self) -> None:
        """Waits for what is being written; removes what nothing refers to."""
        self._manager.wait_until_finished()
        self._collect_garbage()
        self._manager.close()

    def _meta(self, step: int) -> dict[str, Any]:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args).meta

    def _collect_garbage(self) -> None:
        """Deletes replay files of checkpoints that are gone."""
        if not self._replay_dir.exists():
            return
        steps = self._manager.all_steps()
        manifests = [self._meta(step)["replay"] for step in steps]
        collect_garbage(self._replay_dir, manifests)
