"""A trained agent that acts, from its checkpoint alone.

    policy = load("~/logdir/pong")
    envs = policy.make_envs(4)
    obs = envs.reset()
    while True:
        obs = envs.step(policy(obs))

Only the parameters are read, neither optimiser nor replay. The jitted
function that acts is the one of training. Next: snapshot.py for which
checkpoint that is, episodes.py for scores and films.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np

from dreamer.agent.agent import Agent, Carry
from dreamer.agent.dream import reconstruct
from dreamer.agent.types import Params
from dreamer.config import Config
from dreamer.envs.make import make_env
from dreamer.envs.vector import Envs
from dreamer.envs.watched import make_watched
from dreamer.options import ConfigError
from dreamer.run import archive
from dreamer.run.device import select_device
from dreamer.run.snapshot import Snapshot, look_at

NEEDED = ("params", "updates")  # fields of the train state
MODES = ("sample", "argmax")
LENGTH = 108_000  # policy steps of an episode that nothing else ends
# Goes into every seed here and into none of training's, so that no episode
# is one that the agent has learned from.
APART = 0x6576616C


def load(
    path: str | Path,
    checkpoint: int | None = None,
    *,
    mode: str = "sample",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> "Policy":
    """The agent of a checkpoint, ready to act.

    Args:
      path: a run's logdir, which may be in use, or the folder of one
        checkpoint, copied to wherever.
      checkpoint: policy steps of the one wanted; the newest by default.
      mode: way to choose: `sample` draws actions as in training, `argmax`
        takes the likeliest one, of continuous actions the mean.
      seed: seed of these draws.
      settings: changes of the run's, by key, in the groups `env` and `jax`:
        {"jax.platform": "cpu"}.

    Raises:
      ConfigError: one line says why there is none, or why it cannot act here.
    """
    if mode not in MODES:
        raise ConfigError(f"mode={mode}: expected one of {', '.join(MODES)}")
    place = Path(path).expanduser()
    made = partial(_policy, mode=mode, seed=seed)
    return look_at(place, checkpoint, settings or {}, made)


def _policy(snapshot: Snapshot, home: Path, mode: str, seed: int) -> "Policy":
    config = snapshot.config
    dtype = select_device(config.jax)
    probe = Envs([partial(make_env, config)], config.seed)
    probe.close()
    agent = Agent(
        probe.obs_spaces,
        probe.action_space,
        config.agent,
        dtype=dtype,
        context=config.replay_context,
    )
    like = {name: getattr(agent.state_shapes, name) for name in NEEDED}
    part = archive.read_part(snapshot.path, snapshot.meta, like)
    return Policy(
        agent,
        jax.device_put(part["params"]),
        config,
        home=home,
        changed=snapshot.changed,
        mode=mode,
        seed=seed,
        policy_steps=snapshot.policy_steps,
        updates=int(part["updates"]),
    )


class Policy:
    """Turns observations into actions and remembers what it has seen.

    Made by `load`.

    Attributes:
      config: of the run, but for what `load` was told to change.
      changed: keys of the settings that this changed.
      obs_spaces: what each observation key looks like.
      action_space: what the action looks like.
      home: the run's logdir, or the folder of a checkpoint copied elsewhere.
      policy_steps, updates: how far the run was.
      mode: `sample` or `argmax`.
    """

    def __init__(
        self,
        agent: Agent,
        params: Params,
        config: Config,
        *,
        home: Path,
        changed: frozenset[str],
        mode: str,
        seed: int,
        policy_steps: int,
        updates: int,
    ) -> None:
        self.config = config
        self.changed = changed
        self.home = home
        self.obs_spaces = agent.obs_spaces
        self.action_space = agent.action_space
        self.policy_steps = policy_steps
        self.updates = updates
        self.mode = mode
        self._agent = agent
        self._params = params
        self._key = jax.random.key(_apart(seed))
        self._carry: Carry | None = None
        self._calls = 0

    @property
    def frames(self) -> int:
        """Emulated frames that the run had seen."""
        return self.policy_steps * self.config.action_repeat

    @property
    def device(self) -> str:
        """What computes, and in which precision."""
        return f"{jax.devices()[0].device_kind} in {self._agent.dtype}"

    def __call__(self, obs: Mapping[str, Any]) -> np.ndarray:
        """The next action, of one environment or of several.

        Args:
          obs: observations of N environments as `Envs.step` returns them,
            with `is_first` (N,), which begins episodes; or those of one
            alone, as the environment of `make_env` returns them. Then `reset`
            begins an episode.

        Returns:
          The action as `Envs.step` or the environment takes it: int32 (N,)
          or (), float32 (N, n) or (n,).

        Raises:
          ValueError: a key is missing, or has another shape or values of
            another kind, or there are not as many environments as in the call
            before. One line.
        """
        inputs, alone = self._inputs(obs)
        count, carry = len(inputs["is_first"]), self._carry
        if carry is None:
            carry = self._agent.initial_carry(count)
            inputs["is_first"] = np.ones(count, bool)
        if len(carry.deter) != count:
            raise ValueError(
                f"observations of {count} environments, expected"
                f" {len(carry.deter)} as before; reset() forgets them"
            )
        self._carry, action = self._agent.policy(
            self._params,
            carry,
            inputs,
            self._key,
            np.uint32(self._calls % 2**32),
            greedy=self.mode == "argmax",
        )
        self._calls += 1
        return np.array(action[0] if alone else action)

    def _inputs(
        self, obs: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], bool]:
        """What the agent sees, (N, ...), and whether that is of one alone."""
        if missing := self.obs_spaces.keys() - obs.keys():
            raise ValueError(
                f"an observation lacks {min(missing)!r}, expected"
                f" {', '.join(self.obs_spaces)}"
            )
        inputs = {
            key: _as_dtype(key, obs[key], space.dtype)
            for key, space in self.obs_spaces.items()
        }
        key, space = next(iter(self.obs_spaces.items()))
        alone = inputs[key].ndim == len(space.shape)
        if alone:
            inputs = {key: value[None] for key, value in inputs.items()}
        lead = inputs[key].shape[:1]
        for key, space in self.obs_spaces.items():
            if inputs[key].shape != (*lead, *space.shape):
                raise ValueError(
                    f"observation {key!r} has shape {np.shape(obs[key])},"
                    f" expected {space.shape}, or that of several environments"
                )
        first = np.zeros(1, bool) if alone else _is_first(obs, lead)
        return inputs | {"is_first": first}, alone

    def reset(self) -> None:
        """Forgets what it has seen: the next observation begins an episode."""
        self._carry = None

    def reconstruct(self, env: int = 0) -> dict[str, np.ndarray]:
        """How the world model pictures what one environment showed last.

        Args:
          env: index of the environment in the last call.

        Returns:
          Images uint8 (H, W, C) by observation key.
        """
        deter, stoch = (
            np.asarray(x[env : env + 1])
            for x in (self._carry.deter, self._carry.stoch)
        )
        images = reconstruct(self._agent, self._params, deter, stoch)
        return {key: np.asarray(image[0]) for key, image in images.items()}

    def make_env(self) -> gymnasium.Env:
        """One environment as in training, to be used as any of Gymnasium.

        Where it is seeded as it is built, it is with another seed than in
        training, so that `reset` without one begins an episode of its own.
        """
        seed = _apart(self.config.seed)
        return make_env(dataclasses.replace(self.config, seed=seed))

    def make_envs(
        self,
        num: int = 1,
        seed: int = 0,
        length: int = LENGTH,
        filmed: int | None = None,
    ) -> Envs:
        """Environments as in training, with other seeds.

        Args:
          num: number of them; more than one run in worker processes.
          seed: seed of all of them.
          length: policy steps after which an episode is cut short.
          filmed: number of episodes with pictures for people. Episode i is
            to be played in environment i % num. See `dreamer/envs/watched.py`.

        Raises:
          ConfigError: the agent cannot handle them.
          EnvError: one does not start.
        """
        run = self.config.run
        shares = [
            None if filmed is None else len(range(env, filmed, num))
            for env in range(num)
        ]
        return Envs(
            [partial(make_watched, self.config, length, x) for x in shares],
            _apart(seed),
            timeout=run.env_timeout,
            restarts=run.env_restarts,
        )


def _is_first(obs: Mapping[str, Any], lead: tuple[int, ...]) -> np.ndarray:
    """Where episodes begin, of as many environments as `lead` says."""
    if "is_first" not in obs:
        raise ValueError(
            "an observation of several environments lacks 'is_first',"
            f" expected {lead} bool: whether an episode begins"
        )
    first = _as_dtype("is_first", obs["is_first"], np.dtype(bool))
    if first.shape != lead:
        raise ValueError(
            f"observation 'is_first' has shape {first.shape}, expected {lead}"
        )
    return first


def _as_dtype(key: str, value: Any, dtype: np.dtype) -> np.ndarray:
    """A part of an observation, if it is of the right kind.

    Whole numbers of another type will do if none of them would change.

    Raises:
      ValueError: it is not. One line.
    """
    try:
        given = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"observation {key!r} is no array, expected {dtype}"
        ) from None
    if given.dtype == dtype:
        return given
    whole = given.dtype.kind in "iu" and dtype.kind in "iu"
    if whole or np.can_cast(given.dtype, dtype, "same_kind"):
        found = given.astype(dtype)
        if not whole or np.array_equal(found, given):
            return found
    raise ValueError(
        f"observation {key!r} holds {given.dtype}, expected {dtype}"
        + (" and what fits into it" if whole else "")
    )


def _apart(seed: int) -> int:
    """A seed of 32 bits."""
    return int(np.random.SeedSequence((seed, APART)).generate_state(1)[0])
