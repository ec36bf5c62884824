"""Checks that involve several settings, and the check of a task's name.

The range of a single setting stands beside it in `dreamer.config`. Next:
`dreamer.settings.load`, which runs `check` last.
"""

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from dreamer.config import Config, JaxConfig
from dreamer.options import (
    ConfigError,
    cut,
    did_you_mean,
    settings,
    unknown_key,
)
from dreamer.train_ratio import first_full_step

# Groups of `env`, each for the tasks that begin with its name.
SUITES = ("atari", "atari100k", "gym")
# The encoder halves an image four times; the decoder starts from 8 blocks of
# channels whatever the number of blocks of the recurrent core.
IMAGE_MULTIPLE = 16
DECODER_BLOCKS = 8
# In a logdir; stands for the time of the start.
TIMESTAMP = "{timestamp}"
MODULE = re.compile(r"\w+(\.\w+)*")
# What Gymnasium can look up: module:namespace/name-v0, all but the name may
# be missing.
GYM_ID = re.compile(rf"({MODULE.pattern}:)?([\w-]{{1,100}}/)?[\w.-]{{1,100}}")


def check(config: Config) -> None:
    """Find settings that do not go together.

    Raises:
      ConfigError: The first such setting, its value and what is allowed.
    """
    _check_task(config.task)
    _check_imports(config.env.import_)
    _check_logdir(config.logdir)
    _check_sizes(config)
    _check_replay(config)
    _check_processes(config.jax)
    agent = config.agent
    if agent.policy.minstd >= agent.policy.maxstd:
        raise ConfigError(
            f"agent.policy.minstd={agent.policy.minstd}: expected less than"
            f" agent.policy.maxstd={agent.policy.maxstd}"
        )
    if agent.retnorm.perclo >= agent.retnorm.perchi:
        raise ConfigError(
            f"agent.retnorm.perclo={agent.retnorm.perclo}: expected less than"
            f" agent.retnorm.perchi={agent.retnorm.perchi}"
        )


def check_common_logdir(config: Config) -> None:
    """See that several processes of one run find one logdir.

    Each of them fills in `{timestamp}` by its own clock.

    Args:
      config: Settings whose logdir is as given, with nothing filled in.

    Raises:
      ConfigError: The logdir has a `{timestamp}`, and there is a coordinator.
    """
    if config.jax.coordinator != "none" and TIMESTAMP in config.logdir:
        raise ConfigError(
            f"logdir={cut(config.logdir)}: expected a folder that all"
            f" processes name alike, without {TIMESTAMP}"
        )


def check_flags(flags: Mapping[str, str], config: Config) -> None:
    """Find flags for tasks of another kind, which would do nothing.

    Presets and files may hold them: they are for many tasks.

    Args:
      flags: Values by key, before they are applied.
      config: Settings whose task it is, unless a flag names another.

    Raises:
      ConfigError: The first such flag and what the task takes; or an unknown
        one that resembles what the task takes.
    """
    task = flags.get("task", config.task)
    suite = task.partition("_")[0]
    if suite not in SUITES:
        return  # `check` says so
    others = tuple(f"env.{x}." for x in SUITES if x != suite)
    known = settings(config)
    ours = [key for key in known if not key.startswith(others)]
    for key in flags:
        if key in known and key.startswith(others):
            raise ConfigError(f"--{key}: task {cut(task)} takes env.{suite}.*")
        if not any(f"{name}.".startswith(f"{key}.") for name in known):
            unknown_key(key, ours, "--")


def _check_task(task: str) -> None:
    # Here, not above: settings load without the environments' package.
    from dreamer.envs.games import ALIASES, GAMES

    suite, _, name = task.partition("_")
    if suite == "gym" and GYM_ID.fullmatch(name):
        return
    if suite == "gym" and name:
        raise ConfigError(
            f"task={cut(task)}: expected gym_<environment id> or"
            " gym_<module>:<environment id>, as in gym_CartPole-v1"
        )
    if suite in ("atari", "atari100k") and name in (*GAMES, *ALIASES):
        return
    if suite in ("atari", "atari100k") and name:
        hint = did_you_mean(name, GAMES).replace("mean ", f"mean {suite}_")
        raise ConfigError(
            f"task={cut(task)}: unknown game {cut(name)!r}"
            f"{hint or '; --help lists the 57 games'}"
        )
    tasks = [f"{kind}_{x}" for x in GAMES for kind in ("atari100k", "atari")]
    near = task if task not in GAMES else f"atari_{task}"
    raise ConfigError(
        f"task={cut(task)}: expected atari_<game>, atari100k_<game> or"
        f" gym_<environment id>{did_you_mean(near, tasks)}"
    )


def _check_imports(names: tuple[str, ...]) -> None:
    for name in names:
        if not MODULE.fullmatch(name) or name.endswith(".py"):
            raise ConfigError(
                f"env.import={cut(name)}: expected names of modules as after"
                " Python's import, my_env or package.my_env: no path, no .py"
            )


def _check_logdir(logdir: str) -> None:
    path = Path(logdir)
    try:
        for folder in (path, *path.absolute().parents):
            try:
                mode = folder.stat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                if not folder.is_symlink():
                    continue
                raise ConfigError(
                    f"logdir={logdir}: expected a folder, and {folder} links"
                    " to nothing"
                ) from None
            if stat.S_ISDIR(mode):
                return
            raise ConfigError(
                f"logdir={logdir}: expected a folder, and {folder} is a file"
            )
    except OSError as error:
        raise ConfigError(f"logdir={logdir}: {error.strerror}") from None


def _check_sizes(config: Config) -> None:
    """The sizes that layers need to divide evenly."""
    for suite in SUITES:
        size = getattr(config.env, suite).size
        if any(side % IMAGE_MULTIPLE for side in size):
            raise ConfigError(
                f"env.{suite}.size={size[0]},{size[1]}: expected multiples of"
                f" {IMAGE_MULTIPLE}"
            )
    rssm = config.agent.dyn.rssm
    for blocks in (rssm.blocks, DECODER_BLOCKS):
        if rssm.deter % blocks:
            raise ConfigError(
                f"agent.dyn.rssm.deter={rssm.deter}: expected a multiple of"
                f" {DECODER_BLOCKS} and of agent.dyn.rssm.blocks="
                f"{rssm.blocks}"
            )
    depth = config.agent.dec.simple.depth
    if 4 * depth % DECODER_BLOCKS:
        raise ConfigError(
            f"agent.dec.simple.depth={depth}: expected an even number"
        )


def _check_processes(jax: JaxConfig) -> None:
    """Several processes need a place to meet, and each its number."""
    place = jax.coordinator
    if place in ("none", "auto"):
        for key, value, default in (
            ("processes", jax.processes, 1),
            ("process", jax.process, 0),
        ):
            if value != default:
                raise ConfigError(
                    f"jax.{key}={value}: expected only with"
                    " --jax.coordinator host:port"
                )
        return
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"jax.coordinator={cut(place)}: expected none, auto or host:port"
        )
    if jax.process >= jax.processes:
        raise ConfigError(
            f"jax.process={jax.process}: expected less than jax.processes="
            f"{jax.processes}"
        )


def _check_replay(config: Config) -> None:
    """Training starts once the replay holds batch_steps windows."""
    window = config.replay_context + config.batch_length
    least = first_full_step(config.run.envs, config.batch_steps, window)
    if config.run.train_ratio and config.replay.size < least:
        raise ConfigError(
            f"replay.size={config.replay.size}: expected >= {least}, or no"
            f" batch of {config.batch_size} x {config.batch_length} is ever"
            " served"
        )
