"""How a run is doing, seen from outside, by anyone and at any time.

Three witnesses: `status.json` says how far it was, its logdir's lock and the
lock on its output (output.py) whether it is going on. Where there are no
locks, on some network folders, its process has to be seen instead. Nothing
is changed. Next: table.py, which shows it, and local.py, which acts on it.
"""

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamer import status
from dreamer.options import ConfigError
from dreamer.run import lock
from dreamer.sweeps import output

DONE, RUNNING, WAITING = "done", "running", "waiting"
INTERRUPTED, FAILED, LOST = "interrupted", "failed", "lost"
QUEUED = "queued"  # in a cluster's queue, which look() does not ask
MOST = 1e15  # steps, see dreamer/config.py
STATES = (DONE, RUNNING, QUEUED, INTERRUPTED, FAILED, LOST, WAITING)


@dataclass(frozen=True)
class Standing:
    """How a run is doing.

    Attributes:
      state: State, one of `STATES`. LOST: the run ended without a word, as by
        kill -9.
      error: Reason of a failure.
      here: True if a process of this machine was seen to have the run.
      values: Contents of status.json, empty before there is one.
    """

    state: str
    error: str | None = None
    here: bool = False
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def policy_steps(self) -> int:
        """Done so far."""
        return _whole(self.values.get("policy_steps"))

    @property
    def steps(self) -> int:
        """Of the whole run; 0 if it does not say."""
        return _whole(self.values.get("steps"))

    @property
    def steps_per_second(self) -> float | None:
        """Since its last start; None before the first update.

        Until then it only acts, many times as fast.
        """
        try:
            seconds = self.values["time"] - self.values["began"]
            steps = self.policy_steps - self.values["began_steps"]
        except (KeyError, TypeError):
            return None
        if not self.values.get("updates") or seconds <= 0 or steps <= 0:
            return None
        return steps / seconds


def _whole(value: Any) -> int:
    """A count; 0 for what no run writes, which a file may hold still."""
    known = isinstance(value, int | float) and 0 <= value <= MOST
    return int(value) if known else 0


def look(logdir: Path, steps: int | None = None) -> Standing:
    """How the run of a logdir is doing.

    Args:
      logdir: Folder of the run, which need not exist.
      steps: Policy steps after which the run is done; by default those that
        it names.

    Raises:
      OSError: something is there and cannot be read.
    """
    values = status.read(logdir) or {}
    held = output.is_held(logdir) or _is_locked(logdir)
    host = values.get("host")
    here = host in (None, socket.gethostname())
    if held:
        return Standing(RUNNING, None, here, values)
    said = values.get("state")
    if said == "running":
        # Where locks do not reach other machines, its own word has to do.
        fresh = values["silent"] < status.SILENCE
        going_on = fresh and (not here or _is_alive(logdir, values))
        state = RUNNING if going_on else LOST
        return Standing(state, None, here and going_on, values)
    if said == "done":
        wanted = _whole(values.get("steps")) if steps is None else steps
        done = _whole(values.get("policy_steps")) >= wanted
        return Standing(DONE if done else INTERRUPTED, None, False, values)
    if said is not None:
        failed = said == "failed"
        error = values.get("error") if failed else None
        state = FAILED if failed else INTERRUPTED
        return Standing(state, error and str(error), False, values)
    # It ended before it had begun; or an older run, of before status.json.
    line = output.last_line(logdir)
    return Standing(WAITING if line is None else FAILED, line)


def _is_alive(logdir: Path, values: dict[str, Any]) -> bool:
    """Whether a process of this machine is the run, where no lock says so."""
    if output.try_shared(logdir / lock.FILE) is not None:
        return False
    pid = values.get("pid")
    return isinstance(pid, int) and pid > 0 and lock.process_lives(pid)


def _is_locked(logdir: Path) -> bool:
    try:
        lock.check(logdir)
    except ConfigError:
        return True
    return False
