"""The learner goes on exactly, wherever it was stopped."""

import functools
import itertools

import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.run.checkpoint import Checkpoints
from tests.run import tiny
from tests.run.learning import Agent, filled, make_learner

BAD = (1, 6, 7, 11, 12)
# Updates that a turn's steps bought; some turns are of several.
TURNS = (1, 3, 0, 2, 1, 4, 1, 2)
CALLS = [
    call
    for turn, updates in enumerate(TURNS)
    for call in [("steps", turn), *[("update", turn)] * updates]
]


@pytest.fixture
def build(tmp_path):
    return functools.partial(make_learner, logdir=tmp_path)


@pytest.fixture(scope="module")
def sometimes_bad():
    return Agent(BAD)


def follow(learner, replay, calls):
    """Three steps or one update each."""
    for call, turn in calls:
        if call == "update":
            learner.update()
            continue
        for step in tiny.steps(3, 12 + 3 * turn):
            replay.add(step)


def outcome(learner, replay, logdir):
    """All that may not depend on an interruption."""
    learner.arrays()
    kept = sorted(logdir.glob("nonfinite/*"))
    return {
        "arrays": learner.arrays(),
        "metrics": learner.metrics(),
        "state": learner.state,
        "contents": tiny.contents(replay),
        "reports": [x.partition("; its batch")[0] for x in learner.reports],
        "kept": {x.name: dict(np.load(x)) for x in kept},
        "updates": learner.updates,
    }


@pytest.fixture(scope="module")
def undisturbed(sometimes_bad, tmp_path_factory):
    logdir = tmp_path_factory.mktemp("undisturbed")
    replay = filled()  # Capacity 20 per environment: it wraps.
    learner = make_learner(replay, agent=sometimes_bad, limit=3, logdir=logdir)
    follow(learner, replay, CALLS)
    return outcome(learner, replay, logdir)


@pytest.mark.parametrize("stop", range(len(CALLS) + 1))
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not_been(
    stop, build, undisturbed, sometimes_bad, tmp_path
):
    replay = filled()
    learner = build(replay, agent=sometimes_bad, limit=3)
    follow(learner, replay, CALLS[:stop])
    checkpoints = Checkpoints(tmp_path)
    arrays = {"learner": learner.arrays()}
    checkpoints.save(stop, learner.state, replay, arrays, {})
    checkpoints.close()

    again = tiny.make_replay()
    checkpoints = Checkpoints(tmp_path)
    state, arrays, _ = checkpoints.restore(sometimes_bad.init(), again)
    checkpoints.close()
    resumed = build(again, state, sometimes_bad, limit=3)
    resumed.restore(arrays["learner"])
    assert resumed.updates == learner.updates
    assert resumed._nonfinite.in_row == learner._nonfinite.in_row
    resumed.reports.extend(learner.reports)
    follow(resumed, again, CALLS[stop:])
    tiny.assert_equal(outcome(resumed, again, tmp_path), undisturbed)


def test_what_the_runs_above_went_through(undisturbed):
    assert undisturbed["updates"] == sum(TURNS) == 14
    assert len(undisturbed["reports"]) == len(undisturbed["kept"]) == 5
    assert undisturbed["metrics"]["opt/nonfinite"] == 5
    assert undisturbed["arrays"]["nonfinite"] == 0
    assert all(np.isfinite(x) for x in undisturbed["metrics"].values())
    # Some stops are between two updates of one turn.
    assert any(a == b for a, b in itertools.pairwise(CALLS))


def test_nothing_to_restore(build):
    learner, other = build(filled()), build(filled())
    arrays = learner.arrays()
    assert arrays == {"nonfinite": 0}
    for nothing in ({}, arrays):
        other.restore(nothing)
    for one in (learner, other):
        one.update()
    tiny.assert_equal(other.arrays(), learner.arrays())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch/reward", np.zeros((4, 5), np.float32)),
        ("batch/deter", np.zeros((4, 3), np.float32)),
        ("batch/other", np.zeros(3)),
        ("start", np.zeros(3, np.int64)),
        ("env", None),
    ],
)
def test_a_batch_of_another_run_is_refused(name, value, build):
    learner = build(filled())
    learner.update()
    arrays = learner.arrays() | {name: value}
    if value is None:
        del arrays[name]
    with pytest.raises(ConfigError, match="the batch in the checkpoint has"):
        build(filled()).restore(arrays)
