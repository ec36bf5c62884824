"""Several environments side by side, stepped as one.

One environment runs in this process, more of them in a worker process each.
Every environment has its own seed, so that a trajectory does not depend on
how many others there are. Episodes follow on each other: the step after
`is_last` starts the next one (Gymnasium's NEXT_STEP autoreset). Read next:
`dreamer/run/driver.py`, which chooses the actions.
"""

import contextlib
import functools
import multiprocessing
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from dreamer.config import Config
from dreamer.envs.atari import Atari
from dreamer.envs.gym import make_gym
from dreamer.spaces import Space


class EnvError(RuntimeError):
    """An environment failed. The message holds its own traceback."""


def make_envs(config: Config) -> "Envs":
    """Builds the environments of `config.task`, `config.run.envs` of them.

    Raises:
        ValueError: if there is no such task or the agent cannot handle it.
        EnvError: if a worker process does not start.
    """
    repeat = _task_settings(config).repeat
    make = functools.partial(make_env, config)
    return Envs([make] * config.run.envs, config.seed, repeat)


def make_env(config: Config) -> gymnasium.Env:
    """Builds one environment of `config.task`, with canonical spaces."""
    suite, _, name = config.task.partition("_")
    settings = _task_settings(config)
    if suite == "gym":
        return make_gym(name, settings)
    return Atari(name, settings, config.seed)


def _task_settings(config: Config) -> Any:
    suite = config.task.partition("_")[0]
    if suite not in ("atari", "atari100k", "gym"):
        raise ValueError(
            f"task is {config.task!r}, allowed: atari_<game>, "
            "atari100k_<game>, gym_<id>"
        )
    return getattr(config.env, suite)


class Envs:
    """Steps environments in lockstep and marks where episodes begin and end.

    Args:
        makes: one function for each environment, that builds it. With more
            than one they are sent to worker processes.
        seed: of all environments together.
        action_repeat: frames in a policy step, for whoever counts them.

    Attributes:
        num: number of environments N.
        obs_spaces: what each observation key looks like.
        action_space: what the action looks like.
        action_repeat: as given.

    Raises:
        ValueError: if the agent cannot handle the environments.
        EnvError: if a worker process does not start.
    """

    def __init__(
        self,
        makes: Sequence[Callable[[], gymnasium.Env]],
        seed: int,
        action_repeat: int = 1,
    ) -> None:
        self.num = len(makes)
        self.action_repeat = action_repeat
        self._seeds: list[int] | None = [
            int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
            for index in range(self.num)
        ]
        self._vector = _start(
            [
                functools.partial(_make_guarded, make, index)
                for index, make in enumerate(makes)
            ]
        )
        self.obs_spaces = {
            key: to_space(space)
            for key, space in self._vector.single_observation_space.items()
        }
        self.action_space = to_space(
            self._vector.single_action_space, action=True
        )
        self._is_last = np.zeros(self.num, bool)

    def reset(self) -> dict[str, np.ndarray]:
        """Starts an episode in every environment, the first time seeded.

        Returns:
            A dict with every key of `obs_spaces` (N, *shape), `reward`
            float32 (N,), and `is_first`, `is_last`, `is_terminal` bool (N,).

        Raises:
            EnvError: if an environment fails; all are closed then.
        """
        with self._closed_on_error():
            obs, _ = self._vector.reset(seed=self._seeds)
        self._seeds = None
        self._is_last = np.zeros(self.num, bool)
        return self._transition(
            obs,
            reward=np.zeros(self.num, np.float32),
            is_first=np.ones(self.num, bool),
            is_terminal=np.zeros(self.num, bool),
        )

    def step(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        """One policy step in every environment.

        An environment whose last step was `is_last` starts its next episode
        instead: its action is ignored and its reward is 0.

        Args:
            actions: integers (N,) or float32 (N, n) in [-1, 1].

        Returns:
            As `reset`.

        Raises:
            EnvError: if an environment fails; all are closed then.
        """
        with self._closed_on_error():
            obs, reward, terminated, truncated, info = self._vector.step(
                np.asarray(actions)
            )
        is_first = self._is_last
        self._is_last = terminated | truncated
        return self._transition(
            obs,
            reward=reward.astype(np.float32),
            is_first=is_first,
            is_terminal=info["is_terminal"],
        )

    def close(self) -> None:
        """Ends all environments and their processes; may be called twice."""
        if self._vector.closed:
            return
        try:
            # A worker that is in the middle of a step gets a second for it.
            self._vector.close(timeout=1.0)
        except (EOFError, OSError, EnvError):
            # A dead worker cannot say goodbye, and the others need not.
            for process in self._vector.processes:
                process.kill()
                process.join()
            self._vector.closed = True

    def _transition(
        self, obs: dict[str, np.ndarray], **rest: np.ndarray
    ) -> dict[str, np.ndarray]:
        # Copies, because the vector environment reuses its arrays.
        values = {
            key: np.array(obs[key], space.dtype)
            for key, space in self.obs_spaces.items()
        }
        return {**values, **rest, "is_last": self._is_last.copy()}

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        # The error holds its traceback already, and Gymnasium's own report
        # of it takes every "%" in there for a format.
        level = gymnasium.logger.min_level
        gymnasium.logger.min_level = gymnasium.logger.ERROR + 1
        try:
            yield
        except EnvError as error:
            self.close()
            raise EnvError(str(error)) from None
        except (EOFError, OSError) as error:
            # What was being sent must not wait for the garbage collector:
            # Python 3.12.1 crashes when that meets a buffer in use.
            traceback.clear_frames(error.__traceback__)
            self.close()
            raise EnvError(
                "the process of an environment died without a word; its "
                "system may have stopped it, for example for want of memory"
            ) from error
        finally:
            gymnasium.logger.min_level = level


def to_space(space: spaces.Space, action: bool = False) -> Space:
    """Translates a canonical Gymnasium space.

    Raises:
        ValueError: if it is none that `GymAdapter` produces.
    """
    if isinstance(space, spaces.Discrete):
        return Space("discrete", (), int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return Space("discrete", space.shape, int(space.nvec.max()))
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8 and len(space.shape) == 3:
            return Space("image", space.shape)
        if len(space.shape) == 1:
            kind = "continuous" if action else "vector"
            return Space(kind, space.shape)
    raise ValueError(f"space is {space}, allowed: those of GymAdapter")


class _Guard(gymnasium.Wrapper):
    """Makes failures readable elsewhere and keeps infos small.

    An exception may not survive the way to another process, its text does.
    """

    def __init__(self, env: gymnasium.Env, index: int) -> None:
        super().__init__(env)
        self._index = index

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, bool]]:
        with self._explained():
            obs, _ = self.env.reset(**kwargs)
        return obs, {"is_terminal": False}

    def step(
        self, action: Any
    ) -> tuple[Any, float, bool, bool, dict[str, bool]]:
        with self._explained():
            obs, reward, terminated, truncated, info = self.env.step(action)
        is_terminal = bool(info.get("is_terminal", terminated))
        info = {"is_terminal": is_terminal}
        return obs, reward, bool(terminated), bool(truncated), info

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            text = traceback.format_exc()
            raise EnvError(
                f"environment {self._index} failed:\n{text}"
            ) from None


def _make_guarded(
    make: Callable[[], gymnasium.Env], index: int
) -> gymnasium.Env:
    if multiprocessing.parent_process() is not None:
        # Ctrl-C goes to all processes; the main one ends the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _Guard(make(), index)


def _start(
    makes: list[Callable[[], gymnasium.Env]],
) -> SyncVectorEnv | AsyncVectorEnv:
    settings = {"copy": False, "autoreset_mode": AutoresetMode.NEXT_STEP}
    if len(makes) == 1:
        return SyncVectorEnv(makes, **settings)
    # Workers are forked from a small server that has only loaded this
    # module: forking a process with JAX's threads can lock up.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    try:
        with _without_main():
            return AsyncVectorEnv(makes, context="forkserver", **settings)
    except (EOFError, OSError) as error:
        # Releases the half-built object, which ends its workers.
        traceback.clear_frames(error.__traceback__)
        raise EnvError(
            "the process of an environment ended while it started; its own "
            "traceback is above"
        ) from None


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides the running program, which workers would import, JAX and all."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
