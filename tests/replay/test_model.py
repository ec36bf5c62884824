"""Any sequence of operations gives what the slow model gives."""

import json
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dreamer.replay import collect_garbage, disk, guard, listed
from tests.replay.slow import (
    LATENTS,
    SlowReplay,
    make_replay,
    random_arrays,
    random_step,
    same,
    save,
)

COUNT = st.integers(1, 6)


class ReplayMachine(RuleBasedStateMachine):
    """Drives a `Replay` and a `SlowReplay` side by side."""

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.seed = 0
        self.drawn = []
        self.gathered = []
        self.manifests = []
        # Small chunks, so that many come and go; no waiting, so that an
        # `add` that wrongly waits for a reader fails at once.
        self.patches = [
            mock.patch.object(disk, "CHUNK", 5),
            mock.patch.object(guard, "WAIT_SECONDS", 0.0),
        ]
        for patch in self.patches:
            patch.start()

    def teardown(self):
        for patch in self.patches:
            patch.stop()
        shutil.rmtree(self.directory)

    @initialize(
        envs=st.integers(1, 3),
        spare=st.integers(0, 12),
        context=st.integers(1, 3),
        length=st.integers(1, 4),
        online=st.booleans(),
    )
    def start(self, envs, spare, context, length, online):
        capacity = context + length + spare
        self.make = (envs, capacity, context, length)
        self.online = online
        self.replay = make_replay(*self.make, online=online)
        self.slow = SlowReplay(*self.make, online)

    def next_seed(self):
        self.seed += 1
        return self.seed

    @rule(count=COUNT)
    def add(self, count):
        for _ in range(count):
            overwritten = self.slow.time - self.slow.capacity
            for positions in list(self.drawn):
                if positions.start.min() <= overwritten:
                    self.gather_one(self.drawn.index(positions))
            step = random_step(self.slow.envs, self.next_seed())
            self.replay.add(step)
            self.slow.add(step)

    @precondition(lambda self: self.replay.windows)
    @rule(count=COUNT)
    def draw(self, count):
        positions = self.replay.draw(count)
        self.check_drawn(positions, count)
        self.drawn.append(positions)

    def check_drawn(self, positions, count):
        pairs = [(int(e), int(s)) for e, s in self.pairs(positions)]
        assert len(pairs) == count
        assert positions.env.dtype == positions.start.dtype == np.int64
        queued = self.slow.pop_queue(count)
        assert pairs[: len(queued)] == queued
        assert set(pairs) <= set(self.slow.starts())

    @staticmethod
    def pairs(positions):
        return zip(positions.env, positions.start, strict=True)

    @precondition(lambda self: self.drawn)
    @rule(data=st.data())
    def gather(self, data):
        self.gather_one(data.draw(st.integers(0, len(self.drawn) - 1)))

    def gather_one(self, index):
        positions = self.drawn.pop(index)
        self.check_batch(positions, self.replay.gather(positions))
        self.gathered.append(positions)

    def check_batch(self, positions, batch):
        windows = [self.slow.gather(*pair) for pair in self.pairs(positions)]
        same(batch, {k: np.array([w[k] for w in windows]) for k in windows[0]})

    @precondition(lambda self: self.gathered)
    @rule(data=st.data())
    def write_back(self, data):
        index = data.draw(st.integers(0, len(self.gathered) - 1))
        positions = self.gathered.pop(index)
        lead = (len(positions.env), self.slow.length)
        latents = random_arrays(LATENTS, lead, self.next_seed())
        self.replay.write_back(positions, latents)
        for row, (env, start) in enumerate(self.pairs(positions)):
            fresh = {name: value[row] for name, value in latents.items()}
            self.slow.write_back(env, start, fresh)

    @rule()
    def save(self):
        manifest = save(self.replay, self.directory)
        self.manifests = [*self.manifests[-1:], manifest]
        names = set().union(*map(listed, self.manifests))
        collect_garbage(self.directory, names)
        assert {path.name for path in self.directory.iterdir()} == names

    @rule(spare=st.integers(0, 3), count=COUNT)
    def save_and_continue_elsewhere(self, spare, count):
        """The loaded replay, maybe larger, goes on in place of the old."""
        while self.drawn:  # these are not part of a save
            self.gather_one(0)
        self.save()
        envs, capacity, context, length = self.make
        other = make_replay(
            envs, capacity + spare, context, length, 99, self.online
        )
        other.load(self.directory, json.loads(json.dumps(self.manifests[-1])))
        if self.replay.windows:
            mine, theirs = self.replay.draw(count), other.draw(count)
            np.testing.assert_array_equal(mine.env, theirs.env)
            np.testing.assert_array_equal(mine.start, theirs.start)
            self.replay.gather(mine)
            self.check_drawn(theirs, count)
            self.check_batch(theirs, other.gather(theirs))
        if not spare:
            self.replay = other

    @invariant()
    def counts(self):
        held = self.slow.time - self.slow.oldest
        assert len(self.replay) == held * self.slow.envs
        assert self.replay.windows == len(self.slow.starts())


TestReplayMachine = ReplayMachine.TestCase
TestReplayMachine.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
