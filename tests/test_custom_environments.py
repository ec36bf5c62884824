"""examples/README.md does what it says, with examples/firefly.py.

The commands and the module are taken from the page itself; only the presets
are smaller here.
"""

import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from jax.experimental.compilation_cache import compilation_cache

from dreamer.envs.make import make_envs
from dreamer.run.state import Run
from dreamer.settings import load

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text()
(MODULE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# What follows scripts/train: for the example, and for a module of one's own.
EXAMPLE, OWN = re.findall(r"^\S*scripts/train (.*)$", PAGE, re.MULTILINE)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Leaves no trace of what was imported from where."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
    for name in ("Firefly-v0", "MyEnv-v0"):
        gymnasium.registry.pop(name, None)


@pytest.fixture
def firefly():
    """The example, as Gymnasium makes it."""
    sys.path.insert(0, str(EXAMPLES))
    return gymnasium.make("firefly:Firefly-v0", disable_env_checker=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder of compiled programs, for processes and this one."""
    name = "JAX_COMPILATION_CACHE_DIR"
    with pytest.MonkeyPatch.context() as patch:
        if name not in os.environ:
            patch.setenv(name, str(tmp_path_factory.mktemp("cache")))
        before = jax.config.jax_compilation_cache_dir
        jax.config.update("jax_compilation_cache_dir", os.environ[name])
        compilation_cache.reset_cache()
        yield
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()


def small(flags, logdir, *more):
    """Arguments of a command of the page, with a small agent."""
    smaller = {"configs": "debug", "logdir": logdir, "run.report_every": 0}
    for setting, value in smaller.items():
        flags = re.sub(rf"--{setting} \S+", "", flags)
        flags += f" --{setting} {value}"
    return [*flags.split(), *map(str, more)]


def bits(logdir):
    """The newest checkpoint: parameters, random numbers, environments."""
    newest = max(logdir.glob("ckpt/*"), key=lambda path: int(path.name))
    return {path.name: path.read_bytes() for path in newest.glob("*.arrays")}


@pytest.mark.slow
def test_the_command_of_the_page(cache, tmp_path, monkeypatch):
    """Trains, and resumes to the bit, here with two worker processes."""
    settings = ["--run.envs", 2, "--run.steps", 120]
    done = subprocess.run(
        # As scripts/train does: Python itself ignores the current folder.
        [sys.executable, "-P", "-m", "dreamer.train"]
        + small(EXAMPLE, tmp_path / "one", *settings),
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert "  task     gym_Firefly-v0, " in done.stdout
    assert "Done: 10 updates" in done.stdout

    monkeypatch.chdir(EXAMPLES)
    argv = small(EXAMPLE, tmp_path / "two", *settings)
    for stop in (50, 120):  # in the middle of episodes
        with Run(load(argv)) as run:
            assert run.news() == []
            while run.policy_steps < stop:
                run.act()
                run.learn()
            run.save()
    assert bits(tmp_path / "two") == bits(tmp_path / "one")
    assert "envs.arrays" in bits(tmp_path / "one")


def test_a_module_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_env.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    with closing(make_envs(load(small(OWN, tmp_path / "run")))) as envs:
        assert envs.reset()["vector"].shape == (4, 3)
        for step in range(1, 101):
            end = envs.step(np.zeros(4))
            assert end["is_last"].all() == (step == 100)
        assert not end["is_terminal"].any()


@pytest.mark.parametrize("num", [1, 2])
def test_the_example_goes_on_where_it_was(num, monkeypatch, tmp_path):
    monkeypatch.chdir(EXAMPLES)
    config = load(small(EXAMPLE, tmp_path, "--run.envs", num))
    rng = np.random.default_rng(0)
    with closing(make_envs(config)) as one, closing(make_envs(config)) as two:
        obs = one.reset()
        for _ in range(50):
            obs = one.step(rng.uniform(-1, 1, (num, 2)))
        restored, abandoned = two.restore(one.state(), obs)
        assert abandoned == []
        for _ in range(150):  # until fireflies of the next episode
            actions = rng.uniform(-1, 1, (num, 2))
            obs, restored = one.step(actions), two.step(actions)
            for key, value in obs.items():
                np.testing.assert_array_equal(restored[key], value)


def test_the_example_is_what_gymnasium_expects(firefly):
    check_env(firefly.unwrapped, skip_render_check=True)
    firefly.unwrapped.reset(seed=0)
    assert firefly.unwrapped.render().shape == (256, 256, 3)


def score(env, policy):
    """Mean score, and how often a wall ended it, over 20 episodes."""
    total = walls = 0
    for seed in range(20):
        env.reset(seed=seed)
        ended = cut = False
        while not ended and not cut:
            _, reward, ended, cut, _ = env.step(policy(env.unwrapped))
            total += reward
        walls += ended
    return total / 20, walls


def test_the_example_rewards_who_flies_to_fireflies(firefly):
    rng = np.random.default_rng(0)
    aimless, walls = score(firefly, lambda env: rng.uniform(-1, 1, 2))
    assert aimless < 1
    assert walls > 5

    def towards(env):
        push = 20 * (env.firefly - env.net) - 5 * env.velocity
        return np.clip(push, -1, 1)

    skilled, walls = score(firefly, towards)
    assert skilled > 9
    assert walls == 0
