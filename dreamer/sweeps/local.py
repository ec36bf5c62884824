"""Starts runs on this machine, one in each slot, and looks after them.

A run that fails is tried again, one that was interrupted goes on, and when
the sweep itself is told to stop, all of its runs save and end. Runs that an
earlier sweep left behind keep the place that they have until they end.
Next: slots.py and output.py.
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
from dreamer.sweeps.standing import DONE, FAILED, RUNNING, look

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
      runs: to be done, in this order.
      record: of the folder, whose lock the caller holds.
      slots: one run at a time in each.
      retries: of a run that fails.
      tell: takes lines for a person.

    Attributes:
      active: runs that are going on.
      waiting: runs to be started.
      done, failed: runs by name that are over; with the reason.
      left: runs that go on on another machine.
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

    def work(self, stop: StopSignal, show: Callable[[], None]) -> int:
        """Runs everything, or until a signal comes.

        Returns:
          Exit code: 0; 1 if runs failed; 75 if it was told to stop before
          all was done, and the same command goes on.
        """
        self._adopt()
        while (self.active or self.waiting) and not stop.received:
            while self.waiting and self._free() and not stop.received:
                self._start(self.waiting.popleft(), self._free()[0])
            self._watch(self._ended)
            show()
            time.sleep(POLL)
        if stop.received:
            self._stop(show)
            if self.active or self.waiting:
                return INTERRUPTED
        return 1 if self.failed else 0

    def _free(self) -> list[Slot]:
        taken = {active.slot.number for active in self.active}
        return [x for x in self._slots if x.number not in taken]

    def _adopt(self) -> None:
        """Runs that are going on keep their slots, before others start."""
        for run in list(self.waiting):
            if look(Path(run.config.logdir)).state == RUNNING:
                self.waiting.remove(run)
                self._leave(run)

    def _leave(self, run: Run) -> None:
        """Leaves a run alone that is going on already."""
        standing = look(Path(run.config.logdir))
        if not standing.here:
            host = standing.values.get("host", "another machine")
            self._tell(f"{run.name}: is going on on {host}, left alone")
            self.left.append(run.name)
            return
        number = self._record.runs[run.name].slot
        free = self._free()
        mine = [x for x in free if x.number == number] or free
        # Where there are fewer slots than then, it has none of them.
        slot = mine[0] if mine else Slot(-1, "no slot")
        self.active.append(Active(run, slot, None))
        self._tell(f"{run.name}: is going on already, left alone")

    def _start(self, run: Run, slot: Slot) -> None:
        logdir = Path(run.config.logdir)
        state = look(logdir, run.config.run.steps).state
        if state == DONE:
            self.done.append(run.name)
            return
        if state == RUNNING:
            self._leave(run)
            return
        try:
            file = output.open_locked(logdir)
            if file is None:  # somebody was faster
                self._leave(run)
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
        self._tell(f"{run.name}: started on {slot.label}")

    def _remember(self, run: Run, slot: Slot) -> None:
        self._record.runs[run.name].slot = slot.number
        with suppress(OSError):  # a full disk; it is for later sweeps only
            self._record.write()

    def _watch(self, ended: Callable[[Active, int | None], None]) -> None:
        """Tells `ended` of runs that are over, with the exit code if known."""
        for active in list(self.active):
            if active.process is not None:
                code = active.process.poll()
                over = code is not None
            else:
                code = None
                logdir = Path(active.run.config.logdir)
                over = look(logdir).state != RUNNING
            if over:
                self.active.remove(active)
                ended(active, code)

    def _ended(self, active: Active, code: int | None) -> None:
        run = active.run
        now = look(Path(run.config.logdir), run.config.run.steps)
        if code == 0 or (code is None and now.state == DONE):
            self.done.append(run.name)
            self._tell(f"{run.name}: done")
        elif now.state == RUNNING:  # refused, or some of it lives on
            self._leave(run)
        elif code == REFUSED:  # and would be the next time
            self.failed[run.name] = reason(run, code)
            self._tell(f"{run.name}: refused: {self.failed[run.name]}")
        elif code == INTERRUPTED or (code is None and now.state != FAILED):
            self._interrupted(run)
        else:
            self._failed(run, reason(run, code))

    def _interrupted(self, run: Run) -> None:
        self._interruptions[run.name] += 1
        if self._interruptions[run.name] > INTERRUPTIONS:
            self.failed[run.name] = f"interrupted {INTERRUPTIONS + 1} times"
            self._tell(f"{run.name}: {self.failed[run.name]}, given up")
            return
        self.waiting.appendleft(run)
        self._tell(f"{run.name}: interrupted, goes on")

    def _failed(self, run: Run, why: str) -> None:
        self._failures[run.name] += 1
        if self._failures[run.name] > self._retries:
            self.failed[run.name] = why
            self._tell(f"{run.name}: failed: {why}")
            return
        self.waiting.append(run)
        self._tell(f"{run.name}: failed, will be tried again: {why}")

    def _stop(self, show: Callable[[], None]) -> None:
        """Tells all runs to save and end, and waits until they have."""
        mine = [x for x in self.active if x.process is not None]
        others = len(self.active) - len(mine)
        self._tell(f"Stopping {len(mine)} runs, which save first")
        if others:
            self._tell(f"{others} runs of an earlier sweep are left alone")
        for active in mine:
            active.process.terminate()
        while any(x.process is not None for x in self.active):
            self._watch(self._stopped)
            show()
            time.sleep(POLL)

    def _stopped(self, active: Active, code: int | None) -> None:
        if code == 0:
            self.done.append(active.run.name)
        else:
            self.waiting.append(active.run)


def reason(run: Run, code: int | None) -> str:
    """Why a run failed, in one line."""
    logdir = Path(run.config.logdir)
    if code is not None and code < 0:
        return f"killed by signal {-code}"
    said = look(logdir).error if code != REFUSED else None
    return said or output.last_line(logdir) or f"exit code {code}"


def _environment(slot: Slot) -> dict[str, str]:
    """That of the sweep, with the slot's share of a GPU."""
    env = {**os.environ, **slot.env}
    if "XLA_CLIENT_MEM_FRACTION" in slot.env:  # JAX refuses to have both
        env.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)
    return env
