"""Builds the environments of a task, as its settings want them.

`atari_<game>` and `atari100k_<game>` are one game each (`atari.py`),
`gym_<id>` is any environment of Gymnasium (`gym.py`). Read next: `vector.py`,
which steps several of them side by side.
"""

import functools

import gymnasium

from dreamer.config import Config
from dreamer.envs.atari import Atari
from dreamer.envs.gym import make_gym
from dreamer.envs.modules import import_module
from dreamer.envs.vector import Envs
from dreamer.options import ConfigError


def make_envs(config: Config) -> Envs:
    """Builds the environments of `config.task`, `config.run.envs` of them.

    Raises:
        ConfigError: if there is no such task or the agent cannot handle it.
        EnvError: if an environment cannot be built, or a worker process does
            not start.
    """
    make = functools.partial(make_env, config)
    return Envs(
        [make] * config.run.envs,
        config.seed,
        timeout=config.run.env_timeout,
        restarts=config.run.env_restarts,
    )


def make_env(config: Config, render: bool = False) -> gymnasium.Env:
    """Builds one environment of `config.task`, with canonical spaces.

    First imports the modules of `config.env.import_`, in the process that the
    environment will run in.

    Args:
        config: all settings of a run.
        render: whether `render()` is to give RGB arrays, if the environment
            offers them.

    Raises:
        ConfigError: as `make_envs`, or if a module cannot be imported.
        Exception: whatever the environment's own code raises.
    """
    for module in config.env.import_:
        import_module(module, f"env.import={module}")
    if config.suite == "gym":
        return make_gym(config.task_name, config.env.gym, render)
    if config.suite in ("atari", "atari100k"):
        settings = getattr(config.env, config.suite)
        return Atari(config.task_name, settings, config.seed)
    raise ConfigError(
        f"task is {config.task!r}, allowed: atari_<game>, atari100k_<game>,"
        " gym_<id>"
    )
