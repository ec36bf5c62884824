"""The learner: the order of draws and write-backs, and going on exactly."""

import time

import jax
import numpy as np
import pytest

from dreamer.run.checkpoint import Checkpoints
from dreamer.run.learner import Learner
from tests.run import tiny

KEY = 3


@pytest.fixture
def build():
    made = []

    def make(replay, state=None, agent=None):
        agent = agent or tiny.Agent()
        state = state or agent.init()
        learner = Learner(agent, state, replay, 4, jax.random.key(KEY))
        made.append(learner)
        return learner

    yield make
    for learner in made:
        learner.close()


def filled(count=12, **settings):
    replay = tiny.make_replay(**settings)
    for step in tiny.steps(count):
        replay.add(step)
    return replay


def train(learner, replay, updates, start=12):
    """Three steps, then an update, again and again."""
    for index in range(updates):
        for step in tiny.steps(3, start + 3 * index):
            replay.add(step)
        learner.update()


def test_the_next_batch_is_drawn_before_new_steps_come_in(build):
    replay = filled()
    learner = build(replay)
    learner.update()
    newest = replay._time
    train(learner, replay, 1)
    used, _ = learner._fresh
    assert used.start.max() + 3 < newest
    assert replay._time == newest + 3


def test_latents_return_to_where_they_came_from(build):
    replay = filled()
    learner = build(replay)
    learner.update()
    positions, latents = learner._fresh
    before = tiny.contents(replay)
    learner.pending()
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


def test_a_resumed_run_goes_on_as_if_it_had_not_been_interrupted(
    build, tmp_path
):
    replay = filled()  # Capacity 20 per environment: it wraps.
    learner = build(replay)
    train(learner, replay, 4)
    for step in tiny.steps(2, 90):  # Between a draw and its use.
        replay.add(step)
    checkpoints = Checkpoints(tmp_path)
    pending = learner.pending()
    checkpoints.save(1, learner.state, replay, pending, {})
    checkpoints.close()
    train(learner, replay, 6, start=100)

    again = tiny.make_replay()
    checkpoints = Checkpoints(tmp_path)
    state, pending, _ = checkpoints.restore(tiny.Agent().init(), again)
    checkpoints.close()
    resumed = build(again, state)
    assert resumed.updates == 4
    resumed.restore_pending(pending)
    train(resumed, again, 6, start=100)

    tiny.assert_equal(resumed.state, learner.state)
    tiny.assert_equal(resumed.pending(), learner.pending())
    tiny.assert_equal(tiny.contents(again), tiny.contents(replay))
    assert int(resumed.state.updates) == resumed.updates == 10


def test_saving_changes_nothing_for_the_run(build):
    states = []
    for save in (False, True):
        replay = filled()
        learner = build(replay)
        for index in range(5):
            train(learner, replay, 1, start=20 + 3 * index)
            if save:
                learner.pending()
        learner.pending()
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
        learner.pending()
        monkeypatch.undo()
        states.append((learner.state, tiny.contents(replay)))
    tiny.assert_equal(*states)


class Latent:
    """An array on the device that notes when it is brought to the host."""

    def __init__(self, log, update, dtype):
        self.log, self.update, self.dtype = log, update, dtype

    def copy_to_host_async(self):
        self.log.append(("copy begins", self.update))

    def __array__(self, dtype=None, copy=None):
        self.log.append(("waits", self.update))
        return np.zeros((4, 3, 3), self.dtype)


def test_no_update_is_waited_for_before_the_next_is_on_its_way(build):
    log = []
    agent = tiny.Agent()
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
    seen = []
    for _ in range(3):
        learner.update()
        seen.append(learner._sums["seen"])
        assert isinstance(seen[-1], jax.Array)
    total = np.float32(learner._sums["seen"])
    metrics = learner.metrics()
    assert metrics["seen"] == pytest.approx(total / 3)
    assert metrics["opt/updates"] == 3
    assert learner.metrics() == {}
    learner.update()
    assert learner.metrics()["opt/updates"] == 4


def test_an_error_in_the_thread_comes_out_and_nothing_hangs(build):
    replay = filled()

    def broken(positions):
        raise MemoryError("no room for a batch")

    replay.gather = broken
    learner = build(replay)
    with pytest.raises(MemoryError, match="no room"):
        learner.update()
    learner.close()
