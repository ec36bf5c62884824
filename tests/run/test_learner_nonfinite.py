"""The learner with updates that are not applied."""

import functools

import numpy as np
import pytest

from dreamer.run.nonfinite import Diverged
from tests.run import tiny
from tests.run.learning import Agent, filled, make_learner


@pytest.fixture
def build(tmp_path):
    return functools.partial(make_learner, logdir=tmp_path)


@pytest.mark.parametrize("between", ["nothing", "arrays", "metrics"])
def test_latents_of_an_update_not_applied_stay_out(between, build):
    replay = filled()
    learner = build(replay, agent=Agent(bad=[2]))
    for _ in range(3):
        learner.update()
        if between != "nothing":
            getattr(learner, between)()
    learner.arrays()
    contents = tiny.contents(replay)
    assert np.isfinite(contents["deter"].astype(np.float32)).all()
    written = set(np.unique(contents["stoch"]).tolist())
    assert written >= {0, 2}  # `stoch` written back is the update's index


def test_means_are_over_what_was_applied(build):
    agent = Agent(bad=[1, 3])
    learner, other = build(filled(), agent=agent), build(filled(), agent=agent)
    rows = []
    for _ in range(4):
        learner.update()
        other.update()
        rows.append(other.metrics())
    assert [row["opt/nonfinite"] for row in rows] == [1, 0, 1, 0]
    seen = [row["seen"] for row in rows if "seen" in row]
    metrics = learner.metrics()
    assert metrics["seen"] == pytest.approx(sum(seen) / 2)
    assert metrics["opt/nonfinite"] == 2
    assert metrics["opt/updates"] == 4
    learner.update()
    assert learner.metrics()["opt/nonfinite"] == 0


def test_a_row_without_any_update_applied(build):
    learner = build(filled(), agent=Agent(bad=[1, 2]))
    learner.update()
    learner.update()
    expected = {"opt/updates": 2, "opt/nonfinite": 2}
    assert learner.metrics() == expected


def updates_until_diverged(learner, pause=lambda learner: learner):
    for _ in range(20):
        learner = pause(learner)
        try:
            learner.update()
        except Diverged as error:
            return learner.updates, str(error)
    return learner.updates, None


def resumed(build, agent, replay):
    """A function that replaces a learner by one that goes on."""

    def pause(learner):
        arrays = learner.arrays()
        new = build(replay, learner.state, agent, limit=3)
        new.restore(arrays)
        return new

    return pause


@pytest.mark.parametrize("pause", ["none", "saved", "resumed"])
def test_too_many_in_a_row_end_the_run_at_one_place(pause, build, tmp_path):
    agent, replay = Agent(bad=[2, 3, 5, 6, 7, 9]), filled()
    learner = build(replay, agent=agent, limit=3)
    pauses = {
        "none": lambda learner: learner,
        "saved": lambda learner: learner.arrays() and learner,
        "resumed": resumed(build, agent, replay),
    }
    updates, message = updates_until_diverged(learner, pauses[pause])
    # Known while update 8 is under way.
    assert updates == 8
    assert message == (
        "3 updates in a row, from update 5 on, had a loss or gradient that is"
        f" not finite; their batches are in {tmp_path}/nonfinite; begin"
        " another run with a lower agent.opt.lr or --jax.compute_dtype"
        " float32"
    )


def test_single_ones_do_not_end_the_run(build):
    learner = build(filled(), agent=Agent(bad=range(1, 20, 2)), limit=2)
    assert updates_until_diverged(learner) == (20, None)


def test_the_batch_of_an_update_not_applied_is_kept(build, tmp_path):
    replay = filled()
    learner = build(replay, agent=Agent(bad=[2]))
    learner.update()
    batch = learner.arrays()
    learner.update()
    assert learner.reports == []
    learner.update()
    path = tmp_path / "nonfinite" / "update-2.npz"
    assert learner.reports == [
        "update 2: loss or gradient is not finite; it was not applied; its"
        f" batch is in {path}"
    ]
    with np.load(path, allow_pickle=False) as kept:
        names = {k for k in batch if k.startswith("batch/")}
        assert set(kept) == names | {"env", "start"}
        assert kept["batch/deter"].dtype == np.float32
        for name in kept:
            value = kept[name].astype(batch[name].dtype)
            np.testing.assert_array_equal(value, batch[name])
