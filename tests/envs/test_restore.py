"""Several environments saved and restored, as well as each of them can be."""

import dataclasses

import numpy as np
import pytest

from dreamer.options import ConfigError
from tests.envs.scripted import config, raise_odd_exception, scripted


def savable(**settings):
    """The scripted environment, with two methods more."""

    class Savable(scripted(**settings)):
        def get_state(self):
            if settings.get("unwilling"):
                raise_odd_exception()
            return bytes([self.count]) + self.began.to_bytes(4, "little")

        def set_state(self, state):
            if len(state) != 5:
                raise ValueError("it has\nno 5 bytes")
            if settings.get("explosive"):
                raise_odd_exception()
            self.count = state[0]
            self.began = int.from_bytes(state[1:], "little")

    return Savable


def same(left, right):
    assert left.keys() == right.keys()
    for key in left:
        if key != "process":
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)


@pytest.mark.parametrize("num", [1, 3])
def test_goes_on_as_if_never_interrupted(build, num):
    settings = config("atari_breakout", num, lives="reset", length=400)
    rng = np.random.default_rng(0)
    first, plain = build(settings), build(settings)
    obs = first.reset()
    same(obs, plain.reset())
    for count in range(3):
        for _ in range(40 * count):
            actions = rng.integers(first.action_space.classes, size=num)
            obs = first.step(actions)
            same(obs, plain.step(actions))
        again = build(dataclasses.replace(settings, seed=count))
        if count % 2:
            again.reset()
        restored, abandoned = again.restore(first.state(), obs)
        same(restored, obs)
        assert abandoned == []
        first.close()
        first, obs = again, restored
    for _ in range(150):
        actions = rng.integers(first.action_space.classes, size=num)
        same(first.step(actions), plain.step(actions))


@pytest.mark.parametrize("num", [1, 3])
def test_what_cannot_be_saved_begins_an_episode(build, num):
    make = scripted(length=4)
    envs = build([make] * num, 0)
    rows = [envs.reset()]
    rows += [envs.step(np.ones(num, int)) for _ in range(2)]
    state = envs.state()
    assert all(state[f"env{i}"].size == 0 for i in range(num))
    went_on = []
    for _ in range(2):
        again = build([make] * num, 0)
        restored, abandoned = again.restore(state, rows[-1])
        assert abandoned == list(range(num))
        assert restored["is_first"].all()
        assert not restored["is_last"].any()
        assert not restored["reward"].any()
        assert (restored["count"] == 0).all()
        step = again.step(np.ones(num, int))
        assert (step["count"] == 1).all()
        assert not step["is_first"].any()
        went_on.append((restored, step))
    # The same each time, and with other seeds than before.
    for one, two in zip(*went_on, strict=True):
        same(one, two)
    assert not (went_on[0][0]["began"] == rows[0]["began"]).any()
    # Later saved, they begin differently again.
    state = envs.state() | {"steps": np.array(7)}
    other = build([make] * num, 0).restore(state, rows[-1])[0]
    assert not (other["began"] == went_on[0][0]["began"]).any()


@pytest.mark.parametrize("num", [1, 3])
def test_what_cannot_be_saved_at_the_ends_of_an_episode(build, num):
    make = scripted(length=2)
    envs = build([make] * num, 0)
    first = envs.reset()
    restored, abandoned = build([make] * num, 0).restore(envs.state(), first)
    assert abandoned == []
    assert restored["is_first"].all()
    last = [envs.step(np.ones(num, int)) for _ in range(2)][-1]
    assert last["is_last"].all()
    again = build([make] * num, 0)
    restored, abandoned = again.restore(envs.state(), last)
    assert abandoned == []
    same(restored, last)
    step = again.step(np.ones(num, int))
    assert step["is_first"].all()
    assert (step["count"] == 0).all()
    assert (step["began"] > 0).all()  # seeded
    assert len(set(step["began"].ravel().tolist())) == num


def test_each_environment_as_well_as_it_goes(build):
    makes = [savable(), scripted(), savable(unwilling=True), savable()]
    envs = build(makes, 0)
    envs.reset()
    obs = envs.step(np.ones(4, int))
    state = envs.state()
    (report,) = envs.reports
    assert report.startswith("environment 2 cannot be saved: ")
    assert "OddError" in report
    makes[3] = savable(explosive=True)
    again = build(makes, 0)
    restored, abandoned = again.restore(state, obs)
    assert abandoned == [1, 2, 3]
    assert restored["count"][:, 0].tolist() == [1, 0, 0, 0]
    assert restored["is_first"].tolist() == [False, True, True, True]
    assert len(again.reports) == 1
    assert "environment 3 failed with" in again.reports[0]
    assert again.step(np.ones(4, int))["count"][:, 0].tolist() == [2, 1, 1, 1]


@pytest.mark.parametrize("num", [1, 2])
def test_saving_what_is_broken_raises_nothing(build, num):
    class Broken(savable()):
        def get_state(self):
            import os
            import time

            if num > 1:
                time.sleep(600)
            return os.getpid()  # not bytes

    envs = build([Broken] * num, 0, timeout=0.5)
    envs.reset()
    state = envs.state()
    assert all(state[f"env{i}"].size == 0 for i in range(num))
    step = envs.step(np.ones(num, int))
    assert step["is_first"].all() == (num > 1)
    assert state["restarts"] == 0
    assert envs.state()["restarts"] == (num if num > 1 else 0)


def test_seeds_of_replacements_go_on_after_a_resume(build):
    make = scripted(fail=5, how=raise_odd_exception)
    envs = build([make], 0)
    obs = envs.reset()
    begun = [obs["began"].item()]
    for _ in range(3):
        obs = envs.step(np.full(1, 5))
        begun.append(obs["began"].item())
        again = build([make], 0)
        obs, _ = again.restore(envs.state(), obs)
        begun.append(obs["began"].item())
        envs = again
    assert envs.reports == []
    # Failed and resumed three times, never the same seed.
    assert envs.state()["restarts"] == 3
    assert len(set(begun)) == 7


def test_what_is_not_of_these_environments_is_refused(build):
    envs = build([savable()] * 2, 0)
    obs = envs.reset()
    state = envs.state()

    def refused(state, obs=obs):
        with pytest.raises(ConfigError) as caught:
            envs.restore(state, obs)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    more = build([savable()] * 3, 0)
    more.reset()
    assert "3, allowed: 2" in refused(more.state())
    for key, value in (
        ("env1", np.zeros(3, np.uint8)),
        ("is_last", np.zeros(3, bool)),
        ("steps", np.array(-1)),
        ("steps", np.array(np.nan)),
        ("restarts", np.zeros(2, int)),
    ):
        refused({**state, key: value})
        refused({k: v for k, v in state.items() if k != key})
    for key in obs:
        refused(state, {k: v for k, v in obs.items() if k != key})
        refused(state, {**obs, key: obs[key][:1]})
        refused(state, {**obs, key: obs[key].astype(np.float64)})
    refused(state, {**obs, "is_last": ~obs["is_last"]})
    assert "environment 1: it has no 5 bytes" in refused(
        {**state, "env1": np.zeros(3, np.uint8)}
    )
    # They can be used all the same.
    envs.restore(state, obs)
    assert (envs.step(np.ones(2, int))["count"] == 1).all()
    refused({**state, "env1": np.zeros(3, np.uint8)})
    begun = envs.reset()
    assert begun["is_first"].all()
    assert len(set(begun["began"].ravel().tolist())) == 2


def test_saved_arrays_are_numbers(build):
    envs = build([savable()] * 2, 0)
    envs.reset()
    state = envs.state()
    assert {k: v.dtype.kind for k, v in state.items()} == {
        "env0": "u",
        "env1": "u",
        "is_last": "b",
        "steps": "i",
        "restarts": "i",
    }
