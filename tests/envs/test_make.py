"""What a task and its settings make of environments, or refuse."""

import dataclasses

import pytest

from dreamer.config import Config
from dreamer.envs import make
from dreamer.envs.make import make_env
from dreamer.options import ConfigError
from dreamer.spaces import Space
from tests.envs.scripted import config


@pytest.mark.parametrize("num", [1, 3])
def test_spaces_of_atari(build, num):
    start = Config()
    run = dataclasses.replace(start.run, envs=num)
    envs = build(dataclasses.replace(start, task="atari_pong", run=run))
    assert envs.num == num
    assert envs.obs_spaces == {"image": Space("image", (96, 96, 1))}
    assert envs.action_space == Space("discrete", (), 18)
    assert envs.reset()["image"].shape == (num, 96, 96, 1)


def test_every_suite_has_its_own_settings(build):
    start = Config()
    run = dataclasses.replace(start.run, envs=1)
    small = dataclasses.replace(start, task="atari100k_pong", run=run)
    assert build(small).obs_spaces["image"].shape == (64, 64, 3)
    with pytest.raises(ConfigError, match="task is 'dmc_walk'"):
        build(dataclasses.replace(start, task="dmc_walk"))


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("task", ["atari_pnog", "gym_CartPol-v1", "dmc_walk"])
def test_what_a_person_got_wrong_is_one_line(build, task, num):
    with pytest.raises(ConfigError) as caught:
        build(config(task, num))
    assert "\n" not in str(caught.value)
    assert task.partition("_")[2] in str(caught.value)


def test_one_environment_is_that_of_many(build):
    settings = config("gym_CartPole-v1", 2)
    with make_env(settings) as env:
        obs, _ = env.reset(seed=0)
    assert obs.keys() == build(settings).obs_spaces.keys() == {"vector"}


def test_what_is_set_of_failures_reaches_the_environments(monkeypatch):
    def note(makes, seed, **limits):
        return len(makes), seed, limits

    monkeypatch.setattr(make, "Envs", note)
    settings = config("gym_CartPole-v1", 2, seed=3)
    run = dataclasses.replace(settings.run, env_timeout=7.0, env_restarts=4)
    given = make.make_envs(dataclasses.replace(settings, run=run))
    assert given == (2, 3, {"timeout": 7.0, "restarts": 4})
