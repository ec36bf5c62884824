"""Processes of one run that are threads of a test."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from dreamer.run.checkpoint import Checkpoints
from dreamer.run.patience import Patience
from dreamer.run.peers import ALONE, Peers
from dreamer.run.saver import Saver
from tests.run import tiny
from tests.run.logs import make
from tests.run.saved import filled, state

SECONDS = 60.0
ARRAYS = {"envs": {"x": np.arange(5)}}


class Together(Peers):
    """One of several, which gathers by way of what all of them share."""

    def __init__(self, index, values, barrier):
        super().__init__(index, len(values))
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "barrier", barrier)

    def gather(self, values):
        self.values[self.index] = values
        self.barrier.wait(SECONDS)
        gathered = np.stack(self.values)
        self.barrier.wait(SECONDS)
        return gathered


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Process:
    """What saves and restores in one process of a run."""

    def __init__(self, logdir, peers, clock):
        self.folder = peers.folder(logdir)
        self.peers = peers
        self.replay = None
        self.checkpoints = Checkpoints(
            self.folder, leader=None if peers.leads else logdir
        )
        self.logger = make(self.folder, ("jsonl",) if peers.leads else ())
        disk = Patience(self.folder, 1000.0, clock)
        self.saver = Saver(self.checkpoints, self.logger, disk, peers, None)

    def restore(self):
        self.replay = tiny.make_replay()
        _, _, counters = self.checkpoints.restore(
            state(0.0), self.replay, peers=self.peers
        )
        return counters["policy_steps"]

    def common(self):
        return self.checkpoints.common(self.peers)

    def save(self, step):
        """With the replay that was restored, or else a new one."""
        replay = self.replay or filled()
        parts = (step, state(step), replay, ARRAYS, {"policy_steps": step})
        self.saver.save(step, lambda: parts)
        self.checkpoints.wait()

    def turn(self):
        """Of the loop: news, and whether to save."""
        return self.saver.look(), self.saver.agree(False, False)[1]

    def standing(self):
        return self.saver.standing()

    @property
    def saved(self):
        return sorted(self.checkpoints.complete)


class Processes:
    """A run; closed by the context that it is given."""

    def __init__(self, logdir, count, opened):
        values, barrier = [None] * count, threading.Barrier(count)
        self.clock = Clock()
        peers = [Together(i, values, barrier) for i in range(count)]
        peers = peers if count > 1 else [ALONE]
        self.all = [Process(logdir, x, self.clock) for x in peers]
        for process in self.all:
            opened.callback(process.checkpoints.close)
            opened.callback(process.logger.close)

    def each(self, name, *args):
        """What each gives, or the error that it raises, side by side."""

        def call(process):
            try:
                return getattr(process, name)(*args)
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(self.all)) as pool:
            return list(pool.map(call, self.all))

    @property
    def saved(self):
        return [process.saved for process in self.all]


@contextlib.contextmanager
def starter(logdir):
    """Gives what starts a run of so many processes, again and again."""
    with contextlib.ExitStack() as opened:
        yield partial(Processes, logdir, opened=opened)
