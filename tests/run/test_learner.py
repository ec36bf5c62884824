"""The learner: the order of draws and write-backs; its threads."""

import functools
import itertools
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from dreamer.run import learner as learner_module
from tests.run import tiny
from tests.run.learning import Agent, filled, make_learner, train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def build(tmp_path):
    return functools.partial(make_learner, logdir=tmp_path)


def test_the_next_batch_is_drawn_before_new_steps_come_in(build):
    replay = filled()
    learner = build(replay)
    learner.update()
    newest = replay._time
    train(learner, replay, 1)
    used = learner._pending.positions
    assert used.start.max() + 3 < newest
    assert replay._time == newest + 3


def test_latents_return_to_where_they_came_from(build):
    replay = filled()
    learner = build(replay)
    learner.update()
    positions, latents = learner._pending.positions, learner._pending.latents
    before = tiny.contents(replay)
    learner.arrays()
    after = tiny.contents(replay)

    # Windows of `contents` begin at every (env, start); a window's latents
    # are those of its first step, K being 1.
    starts = len(before["deter"]) // 2
    expected = {k: before[k].copy() for k in ("deter", "stoch")}
    for row, (env, start) in enumerate(
        zip(positions.env, positions.start, strict=True)
    ):
        for t in range(3):
            if start + 1 + t < starts:
                where = env * starts + start + 1 + t
                for name, value in expected.items():
                    value[where] = np.asarray(latents[name])[row, t]
    tiny.assert_equal({k: after[k] for k in expected}, expected)
    assert (after["deter"] != before["deter"]).any()


def test_saving_changes_nothing_for_the_run(build):
    states = []
    for save in (False, True):
        replay = filled()
        learner = build(replay)
        for index in range(5):
            train(learner, replay, 1, start=20 + 3 * index)
            if save:
                learner.arrays()
        learner.arrays()
        states.append((learner.state, tiny.contents(replay)))
    tiny.assert_equal(*states)


def test_a_slow_thread_changes_nothing(build, monkeypatch):
    states = []
    for delay in (0.0, 0.02):
        replay = filled()
        gather = replay.gather

        def slowly(positions, gather=gather, delay=delay):
            time.sleep(delay)
            batch = gather(positions)
            time.sleep(delay)
            return batch

        monkeypatch.setattr(replay, "gather", slowly)
        learner = build(replay)
        train(learner, replay, 10)
        learner.arrays()
        monkeypatch.undo()
        states.append((learner.state, tiny.contents(replay)))
    tiny.assert_equal(*states)


class Latent:
    """An array on the device that notes when it is brought to the host."""

    is_fully_addressable = True

    def __init__(self, log, update, dtype):
        self.log, self.update, self.dtype = log, update, dtype

    def copy_to_host_async(self):
        self.log.append(("copy begins", self.update))

    def __array__(self, dtype=None, copy=None):
        self.log.append(("waits", self.update))
        return np.zeros((4, 3, 3), self.dtype)


def test_no_update_is_waited_for_before_the_next_is_on_its_way(build):
    log = []
    agent = Agent()
    inner = agent.update

    def update(state, batch, key):
        number = int(state.updates)
        log.append(("dispatch", number))
        state, latents, metrics = inner(state, batch, key)
        noting = Latent(log, number, latents["deter"].dtype)
        return state, {**latents, "deter": noting}, metrics

    agent.update = update
    learner = build(filled(), agent=agent)
    for _ in range(3):
        learner.update()
    assert log == [
        ("dispatch", 0),
        ("copy begins", 0),
        ("dispatch", 1),
        ("waits", 0),
        ("copy begins", 1),
        ("dispatch", 2),
        ("waits", 1),
        ("copy begins", 2),
    ]


def test_metrics_are_means_and_stay_on_the_device_until_asked(build):
    replay = filled()
    learner = build(replay)
    for _ in range(3):
        learner.update()
        assert isinstance(learner._sums, jax.Array)
    total = float(learner._sums[learner._names.index("seen")])
    metrics = learner.metrics()
    assert metrics["seen"] == pytest.approx(total / 3)
    assert metrics["opt/updates"] == 3
    assert learner.metrics() == {}
    learner.update()
    assert learner.metrics()["opt/updates"] == 4


def test_seconds_of_waiting_for_batches_add_up(build, monkeypatch):
    ticks = itertools.count()
    clock = types.SimpleNamespace(perf_counter=ticks.__next__)
    monkeypatch.setattr(learner_module, "time", clock)
    learner = build(filled())
    for _ in range(3):
        learner.update()
    assert learner.waited == 3


# Threads


class Compiler:
    """Stands for a jitted update that takes long to compile."""

    def __init__(self, update, error=None):
        self.update, self.error = update, error
        self.finish = threading.Event()

    def lower(self, *args):
        return self

    def compile(self):
        self.finish.wait(60)
        if self.error:
            raise self.error
        return self.update


def test_nobody_need_wait_for_the_compiler(build):
    agent = Agent()
    compiler = agent.update = Compiler(agent.update)
    learner = build(filled(), agent=agent)
    assert learner.ready(0)  # nothing compiles yet
    learner.compile()
    assert not learner.ready(0.01)
    learner.close()
    assert not learner.ready(0)
    compiler.finish.set()
    assert learner.ready(60)
    learner.update()
    assert learner.updates == 1


def test_an_error_of_the_compiler_comes_out(build):
    agent = Agent()
    agent.update = Compiler(agent.update, MemoryError("no room to compile"))
    agent.update.finish.set()
    learner = build(filled(), agent=agent)
    learner.compile()
    assert learner.ready(60)
    with pytest.raises(MemoryError, match="no room to compile"):
        learner.update()


LEAVE = """
import sys, time
from pathlib import Path
import jax
from dreamer.run.threads import run_program
from dreamer.run.learner import Learner
from tests.run.learning import Agent, filled

class Slow:
    def lower(self, *args):
        return self
    def compile(self):
        time.sleep(600)

def main():
    agent = Agent()
    agent.update = Slow()
    key = jax.random.key(0)
    learner = Learner(agent, agent.init(), filled(), 4, key, Path("."), 1)
    learner.compile()
    assert not learner.ready(0.1)
    learner.close()
    print("saved")
    return 75

run_program(main)
"""


def test_a_process_ends_while_its_update_is_being_compiled():
    ended = subprocess.run(
        [sys.executable, "-c", LEAVE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (75, "saved\n"), ended.stderr


def test_an_error_in_the_thread_comes_out_and_nothing_hangs(build):
    replay = filled()

    def broken(positions):
        raise MemoryError("no room for a batch")

    replay.gather = broken
    learner = build(replay)
    with pytest.raises(MemoryError, match="no room"):
        learner.update()
    learner.close()
