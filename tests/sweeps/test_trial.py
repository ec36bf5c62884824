"""What cannot be built is known before a sweep starts anything."""

import subprocess
import sys

import pytest

from dreamer.options import ConfigError
from dreamer.sweeps import trial
from dreamer.sweeps.grid import expand
from tests.sweeps.fake_train import ROOT

MODULE = """
import os, sys
import gymnasium
from gymnasium import spaces

print("a module that talks")

class Good(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Discrete(2)

class Raises(Good):
    def __init__(self):
        raise RuntimeError("no\\nlevel file")

class Ends(Good):
    def __init__(self):
        sys.exit(0)

class Dies(Good):
    def __init__(self):
        print("a last word", file=sys.stderr, flush=True)
        os._exit(7)

class Odd(Good):
    observation_space = spaces.Text(4)

for one in (Good, Raises, Ends, Dies, Odd):
    gymnasium.register(f"{one.__name__}-v0", one)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a person, in the folder that the command is started in."""
    (tmp_path / "zoo.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def runs(folder, *tasks, **flags):
    changes = {key.replace("__", "."): x for key, x in flags.items()}
    return expand(["debug"], {"task": ",".join(tasks), **changes}, folder)


def test_what_can_be_built_is_not_talked_about(tmp_path, module, capfd):
    good = runs(tmp_path, "gym_CartPole-v1", "gym_zoo:Good-v0", seed="0,1")
    trial.check(good, "local")
    assert capfd.readouterr() == ("", "")
    assert "zoo" not in sys.modules


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("gym_zoo:Raises-v0", "RuntimeError: no level file"),
        ("gym_zoo:Ends-v0", "SystemExit: 0"),
        ("gym_zoo:Dies-v0", "exit code 7; the last that it said: a last word"),
        ("gym_zoo:Odd-v0", "Text"),
        ("gym_zoo:Bad-v0", "Environment `Bad` doesn't exist"),
        ("gym_nothing:Good-v0", "no module named 'nothing'"),
    ],
)
def test_what_cannot_is_one_line(tmp_path, module, task, reason):
    tasks = ["gym_CartPole-v1", task]
    with pytest.raises(ConfigError) as found:
        trial.check(runs(tmp_path, *tasks), "local")
    assert reason in str(found.value)
    assert "\n" not in str(found.value)


def test_a_cluster_is_told_that_it_was_tried_here(tmp_path, module):
    bad = runs(tmp_path, "gym_zoo:Good-v0", env__import="zoological")
    with pytest.raises(ConfigError, match="no module named 'zoological'") as e:
        trial.check(bad, "k8s")
    words = "(tried on this machine before --launcher k8s)"
    assert str(e.value).endswith(words)


def test_every_task_is_tried_once_and_games_by_name(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(trial, "_try", lambda x, _: tried.extend(x) or "")
    both = runs(
        tmp_path, "gym_A-v0", "gym_B-v0", seed="0,1,2", batch_size="4,5"
    )
    trial.check([*both, *runs(tmp_path, "atari_pong")], "local")
    assert [x.config.task for x in tried] == ["gym_A-v0", "gym_B-v0"]


def test_one_that_hangs(tmp_path, monkeypatch):
    def run(*_, **options):
        raise subprocess.TimeoutExpired("python", options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    slow = runs(tmp_path, "gym_A-v0", run__env_timeout="7")
    with pytest.raises(ConfigError, match="=gym_A-v0: no environment in 7 s"):
        trial.check(slow, "local")
