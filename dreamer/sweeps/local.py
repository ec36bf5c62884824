"""Starts runs on this machine, one in each slot, and looks after them.

A run that fails is tried again, one that was interrupted goes on, and when
the sweep itself is told to stop, all of its runs save and end. Runs that an
earlier sweep left behind keep the place that they have until they end. A
folder that cannot be read for a while ends nothing. Next: slots.py and
output.py.
"""

import os
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dreamer.run.when import StopSignal
from dreamer.sweeps import output
from dreamer.sweeps.grid import Run
from dreamer.sweeps.record import Record
from dreamer.sweeps.slots import Slot
from dreamer.sweeps.standing import DONE, FAILED, RUNNING, Standing, look

REFUSED, INTERRUPTED = 2, 75  # exit codes of dreamer.train
RETRIES = 1  # of a run that fails, if the person does not say
INTERRUPTIONS = 10  # after which a run counts as failed: who stops it?
POLL = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Active:
    """A run that is going on; without a process, an earlier sweep's."""

    run: Run
    slot: Slot
    process: subprocess.Popen | None


class Local:
    """The runs of a sweep on this machine.

    Args:
      runs: Runs to be done, in this order.
      record: Record of the folder, whose lock the caller holds.
      slots: Shares of the machine, each for one run at a time.
      retries: Number of starts of a run after it failed.
      tell: Function that takes lines for a person.

    Attributes:
      active: Runs in progress.
      waiting: Runs to be started.
      done: Names of runs that are done.
      failed: Reasons by name, of runs that failed.
      left: Names of runs that another machine has.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        record: Record,
        slots: Sequence[Slot],
        retries: int,
        tell: Callable[[str], None],
    ) -> None:
        self.active: list[Active] = []
        self.waiting = deque(runs)
        self.done: list[str] = []
        self.failed: dict[str, str] = {}
        self.left: list[str] = []
        self._record, self._slots, self._tell = record, list(slots), tell
        self._retries = retries
        self._failures: Counter[str] = Counter()
        self._interruptions: Counter[str] = Counter()
        self._unseen: dict[str, float] = {}  # since when, by name

    def work(self, stop: StopSignal, show: Callable[[], None]) -> int:
        """Runs everything, or until a signal comes.

        Returns:
          Exit code: 0; 1 if runs failed; 75 if it was told to stop before
          all was done, or if others have some of it, and the same command
          goes on.
        """
        self._adopt()
        while (self.active or self.waiting) and not stop.received:
            for _ in range(len(self.waiting)):
                if stop.received or not self._free():
                    break
                self._start(self.waiting.popleft(), self._free()[0])
            for over in self._over():
                self._ended(*over)
            self._rest(show)
        if stop.received:
            self._stop(show)
            if self.active or self.waiting:
                return INTERRUPTED
        if self.failed:
            return 1
        return INTERRUPTED if self.left else 0

    def _rest(self, show: Callable[[], None]) -> None:
        with suppress(OSError):  # nobody may be there to see it
            show()
        time.sleep(POLL)

    def _say(self, line: str) -> None:
        with suppress(OSError):
            self._tell(line)

    def _look(self, run: Run) -> Standing | None:
        """How a run is doing; None while that cannot be seen."""
        try:
            standing = look(Path(run.config.logdir), run.config.run.steps)
        except OSError as error:
            self._unread(run, error)
            return None
        self._unseen.pop(run.name, None)
        return standing

    def _unread(self, run: Run, error: OSError) -> None:
        """Says once that a folder gives an error."""
        if run.name not in self._unseen:
            self._unseen[run.name] = time.monotonic()
            reason = error.strerror or str(error)
            self._say(f"{run.name}: cannot be read, tried again: {reason}")

    def _free(self) -> list[Slot]:
        taken = {active.slot.number for active in self.active}
        return [x for x in self._slots if x.number not in taken]

    def _adopt(self) -> None:
        """Runs that are going on keep their slots, before others start."""
        for run in list(self.waiting):
            standing = self._look(run)
            if standing and standing.state == RUNNING:
                self.waiting.remove(run)
                self._leave(run, standing)

    def _leave(self, run: Run, standing: Standing) -> None:
        """Leaves a run alone that was seen to go on already."""
        if not standing.here:
            host = standing.values.get("host", "another machine")
            self._say(
                f"{run.name}: already running on {host}; not started again"
            )
            self.left.append(run.name)
            return
        number = self._record.runs[run.name].slot
        free = self._free()
        mine = [x for x in free if x.number == number] or free
        # Where there are fewer slots than then, it has none of them.
        slot = mine[0] if mine else Slot(-1, "no slot")
        self.active.append(Active(run, slot, None))
        self._say(f"{run.name}: already running here; not started again")

    def _start(self, run: Run, slot: Slot) -> None:
        standing = self._look(run)
        if standing is None:
            self._wait(run)
        elif standing.state == DONE:
            self.done.append(run.name)
        elif standing.state == RUNNING:
            self._leave(run, standing)
        else:
            self._begin(run, slot)

    def _wait(self, run: Run) -> None:
        """Tries a run that cannot be seen again, as it bears with a disk."""
        since = self._unseen[run.name]
        patience = run.config.run.disk_patience
        if time.monotonic() - since <= patience:
            self.waiting.append(run)
            return
        why = f"its folder cannot be read for {patience:,.0f} s"
        self.failed[run.name] = why
        self._say(f"{run.name}: failed: {why}")

    def _begin(self, run: Run, slot: Slot) -> None:
        try:
            file = output.open_locked(Path(run.config.logdir))
            if file is None:  # somebody was faster, or is looking
                self.waiting.append(run)
                return
            with file:
                self._remember(run, slot)
                process = subprocess.Popen(
                    [sys.executable, "-m", *run.command],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=_environment(slot),
                    start_new_session=True,  # Ctrl-C is for us to pass on
                )
        except OSError as error:
            self._failed(run, error.strerror or str(error))
            return
        with suppress(ProcessLookupError):
            slot.bind(process.pid)
        self.active.append(Active(run, slot, process))
        self._say(f"{run.name}: started on {slot.label}")

    def _remember(self, run: Run, slot: Slot) -> None:
        self._record.runs[run.name].slot = slot.number
        with suppress(OSError):  # a full disk; it is for later sweeps only
            self._record.write()

    def _over(self) -> list[tuple[Run, int | None, Standing | None]]:
        """Takes out runs that are over: exit codes if known, and standings."""
        found = []
        for active in list(self.active):
            code = active.process.poll() if active.process else None
            if active.process and code is None:
                continue
            now = self._look(active.run)
            gone = now is not None and now.state != RUNNING
            if active.process or gone:
                self.active.remove(active)
                found.append((active.run, code, now))
        return found

    def _ended(self, run: Run, code: int | None, now: Standing | None) -> None:
        state = now.state if now else None
        if code == 0 or (code is None and state == DONE):
            self.done.append(run.name)
            self._say(f"{run.name}: done")
        elif now and state == RUNNING:  # refused, or some of it lives on
            self._leave(run, now)
        elif code == REFUSED and now:  # and would be the next time
            self.failed[run.name] = reason(run, code, now)
            self._say(f"{run.name}: refused: {self.failed[run.name]}")
        elif code == REFUSED:  # maybe by a run that was not seen
            self.waiting.append(run)
        elif code == INTERRUPTED or (code is None and state != FAILED):
            self._interrupted(run)
        else:
            self._failed(run, reason(run, code, now))

    def _interrupted(self, run: Run) -> None:
        self._interruptions[run.name] += 1
        if self._interruptions[run.name] > INTERRUPTIONS:
            self.failed[run.name] = f"interrupted {INTERRUPTIONS + 1} times"
            self._say(f"{run.name}: {self.failed[run.name]}, given up")
            return
        self.waiting.appendleft(run)
        self._say(f"{run.name}: interrupted, goes on")

    def _failed(self, run: Run, why: str) -> None:
        self._failures[run.name] += 1
        if self._failures[run.name] > self._retries:
            self.failed[run.name] = why
            self._say(f"{run.name}: failed: {why}")
            return
        self.waiting.append(run)
        self._say(f"{run.name}: failed, will be tried again: {why}")

    def _stop(self, show: Callable[[], None]) -> None:
        """Tells all runs to save and end, and waits until they have."""
        mine = [x for x in self.active if x.process is not None]
        others = len(self.active) - len(mine)
        self._say(f"Stopping {len(mine)} runs, which save first")
        if others:
            self._say(f"{others} runs of an earlier sweep are left alone")
        for active in mine:
            active.process.terminate()
        while any(x.process is not None for x in self.active):
            for run, code, _ in self._over():
                if code == 0:
                    self.done.append(run.name)
                else:
                    self.waiting.append(run)
            self._rest(show)


def reason(run: Run, code: int | None, now: Standing | None) -> str:
    """Why a run failed, in one line."""
    logdir = Path(run.config.logdir)
    if code is not None and code < 0:
        return f"killed by signal {-code}"
    said = now.error if now and code != REFUSED else None
    return said or output.last_line(logdir) or f"exit code {code}"


def _environment(slot: Slot) -> dict[str, str]:
    """That of the sweep, with the slot's share of a GPU."""
    env = {**os.environ, **slot.env}
    if "XLA_CLIENT_MEM_FRACTION" in slot.env:  # JAX refuses to have both
        env.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)
    return env
