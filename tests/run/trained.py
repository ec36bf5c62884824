"""Checkpoints of real agents that have learned nothing: quick to make."""

import contextlib
import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dreamer.agent.agent import Agent
from dreamer.envs.make import make_envs
from dreamer.run.checkpoint import Checkpoints
from dreamer.run.parts import make_replay
from dreamer.settings import load, save, to_yaml

PONG = "--configs atari100k debug --env.atari100k.length 80"
CARTPOLE = "--configs debug --task gym_CartPole-v1"
PENDULUM = "--configs debug --task gym_Pendulum-v1"


@contextlib.contextmanager
def programs_kept(folder):
    """Programs compiled meanwhile are kept there, for others to load."""
    key, name = "jax_compilation_cache_dir", "JAX_COMPILATION_CACHE_DIR"
    before = getattr(jax.config, key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, os.environ.get(name, str(folder)))
        jax.config.update(key, os.environ[name])
        compilation_cache.reset_cache()
        yield
    jax.config.update(key, before)
    compilation_cache.reset_cache()


def checkpoint(logdir, flags, policy_steps=300, seed=0):
    """A logdir with one more checkpoint; gives config, agent and state."""
    config = load([*flags.split(), "--logdir", str(logdir)])
    envs = make_envs(config)
    agent = Agent(
        envs.obs_spaces,
        envs.action_space,
        config.agent,
        dtype=jax.numpy.float32,
    )
    state = agent.init(seed)
    replay = make_replay(config, envs, agent, 0)
    envs.close()
    settings = to_yaml(config)
    with contextlib.closing(Checkpoints(logdir, settings)) as checkpoints:
        counters = {"policy_steps": policy_steps}
        checkpoints.save(policy_steps, state, replay, {}, counters)
    save(config, logdir / "config.yaml")
    return config, agent, state
