"""What a command line expands to: runs, their names and their settings."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamer.envs.games import GAMES
from dreamer.options import ConfigError
from dreamer.sweeps.grid import expand, planned_run
from tests.refusals import examples

HERE = Path("/somewhere/sweep")
DEBUG = ["atari100k", "debug"]


def names(flags, entries=DEBUG):
    return [run.name for run in expand(entries, flags, HERE)]


def test_tasks_and_seeds():
    flags = {"task": "atari100k_pong,gym_CartPole-v1", "seed": "0,7"}
    assert names(flags) == [
        "atari100k_pong-0",
        "gym_CartPole-v1-0",
        "atari100k_pong-7",
        "gym_CartPole-v1-7",
    ]


def test_without_any_it_is_one_run_of_the_presets():
    assert names({}) == ["atari100k_pong-0"]


def test_a_grid_is_in_the_names_in_one_order_whoever_types_it():
    flags = {"run.train_ratio": "4,8", "agent.opt.lr": "1e-4,4e-5"}
    expected = [
        "atari100k_pong-agent.opt.lr=0.0001-run.train_ratio=4.0-0",
        "atari100k_pong-agent.opt.lr=0.0001-run.train_ratio=8.0-0",
        "atari100k_pong-agent.opt.lr=4e-05-run.train_ratio=4.0-0",
        "atari100k_pong-agent.opt.lr=4e-05-run.train_ratio=8.0-0",
    ]
    assert names(flags) == expected
    assert names(dict(reversed(flags.items()))) == expected


def test_what_has_one_value_is_not_in_the_names():
    assert names({"run.steps": "1e3"}) == ["atari100k_pong-0"]


def test_a_run_has_the_settings_that_its_name_says():
    run = expand(DEBUG, {"agent.opt.lr": "1e-4,2e-4", "seed": "3"}, HERE)[1]
    assert run.config.agent.opt.lr == 2e-4
    assert run.config.seed == 3
    assert run.config.batch_size == 4  # of `debug`
    assert run.config.logdir == str(HERE / run.name)
    assert planned_run(HERE, run.name, run.arguments) == run
    assert run.command[0] == "dreamer.train"
    assert run.command[-2:] == ["--logdir", str(HERE / run.name)]


def test_settings_that_are_lists_take_one_value():
    flags = {"logger.outputs": "jsonl,tensorboard", "env.gym.size": "32 32"}
    flags["task"] = "gym_CartPole-v1"
    (run,) = expand(["debug"], flags, HERE)
    assert run.config.logger.outputs == ("jsonl", "tensorboard")
    assert run.config.env.gym.size == (32, 32)


def test_the_games_of_both_benchmarks():
    small = names({"task": "all26", "seed": "0,1"})
    assert len(small) == len(set(small)) == 52
    assert small[0] == "atari100k_alien-0"
    assert "atari100k_venture-0" not in small
    large = names({"task": "all57"}, ["atari200m", "debug"])
    assert large == [f"atari_{game}-0" for game in GAMES]


def test_tasks_with_slashes_and_modules():
    tasks = "gym_dreamer/Catch-v0,gym_my.module:My_Env-v2"
    found = names({"task": tasks})
    assert found == ["gym_dreamer_Catch-v0-0", "gym_my.module_My_Env-v2-0"]


def test_long_names_are_cut_and_stay_apart():
    task = f"gym_{'m' * 300}:{'n' * 100}/{'e' * 90}"
    found = names({"task": f"{task}-v0,{task}-v1", "seed": "4294967295"})
    assert len(set(found)) == 2
    for name in found:
        assert len(f"{name}.log.partial".encode()) < 255
        assert name.endswith("-4294967295")
    assert found == names(
        {"task": f"{task}-v0,{task}-v1", "seed": "4294967295"}
    )


def test_files_of_settings_are_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("batch_size: 5")
    monkeypatch.chdir(tmp_path)
    (run,) = expand(["debug", "mine.yaml"], {}, HERE)
    assert run.config.batch_size == 5
    assert str(tmp_path / "mine.yaml") in run.arguments


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"seed": "1,1"}, "--seed: 1 is given twice"),
        ({"run.steps": "1000,1e3"}, "--run.steps: 1000 is given twice"),
        ({"task": "all26,atari100k_pong"}, "atari100k_pong is given twice"),
        ({"run.steps": "5,,6"}, "--run.steps=5,,6: a value is missing"),
        ({"run.steps": "5,x"}, "--run.steps=x: expected a whole number"),
        ({"run.step": "5,6"}, "did you mean run.steps?"),
        ({"task": "atari100k_pong,atari100k_pnog"}, "did you mean"),
        ({"run": "5"}, "group of settings"),
        ({"replay.size": "1000,3"}, "replay.size=3: expected >="),
        ({"task": "gym_a/b,gym_a_b"}, "would both be in gym_a_b-0"),
        ({"seed": ",".join(map(str, range(10_001)))}, "10001 runs"),
    ],
)
def test_what_is_refused(flags, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        expand(DEBUG, flags, HERE)


def test_all_games_of_no_benchmark_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("task: gym_CartPole-v1")
    with pytest.raises(ConfigError, match="--task=all26: expected --configs"):
        expand(["debug", str(path)], {"task": "all26"}, HERE)


WORDS = st.text("aA_-.:/=1é", min_size=1, max_size=6)
FLAGS = st.fixed_dictionaries(
    {
        "task": st.lists(WORDS.map("gym_{}".format), min_size=1, max_size=4),
        "seed": st.lists(st.integers(0, 99).map(str), min_size=1, max_size=3),
    },
    optional={
        "agent.opt.lr": st.lists(
            st.floats(1e-9, 1e9).map(str), min_size=1, max_size=3
        ),
        "env.gym.repeat": st.lists(
            st.integers(1, 64).map(str), min_size=1, max_size=3
        ),
        "jax.platform": st.lists(st.sampled_from(["cpu", "gpu", "auto"])),
    },
)


@examples(150)
@given(FLAGS)
def test_no_two_runs_ever_share_a_folder(flags):
    flags = {key: ",".join(x) for key, x in flags.items() if x}
    try:
        runs = expand(["debug"], flags, HERE)
    except ConfigError:
        return
    assert len({run.name for run in runs}) == len(runs)
    assert len({run.config for run in runs}) == len(runs)
    for run in runs:
        assert Path(run.config.logdir).parent == HERE
        assert re.fullmatch(r"[A-Za-z0-9_.=-]+", run.name)
