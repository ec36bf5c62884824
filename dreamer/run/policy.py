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

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np

from dreamer.agent.agent import Agent, Carry, Params
from dreamer.agent.dream import reconstruct
from dreamer.config import Config
from dreamer.envs.vector import Envs, make_env
from dreamer.envs.watched import make_watched
from dreamer.replay import Damaged
from dreamer.run import archive
from dreamer.run.device import select_device
from dreamer.run.snapshot import Snapshot, locate, read

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
      mode: `sample` draws actions as in training, `argmax` takes the likeliest
        one, of continuous actions the mean.
      seed: of these draws.
      settings: changes of the run's, by key, in the groups `env` and `jax`:
        {"jax.platform": "cpu"}.

    Raises:
      ValueError: one line says why there is none, or why it cannot act here.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode}: expected one of {', '.join(MODES)}")
    place = Path(path).expanduser()
    while True:
        path, home = locate(place, checkpoint)
        try:
            snapshot = read(path, home, settings or {})
            if checkpoint not in (None, snapshot.policy_steps):
                raise ValueError(
                    f"checkpoint={checkpoint}: {path} is the one of policy"
                    f" step {snapshot.policy_steps}"
                )
            return _policy(snapshot, home, mode, seed)
        except Damaged as error:
            # A run that goes on replaces its checkpoints: look again then.
            if path.exists():
                hint = "" if path == place else "; --checkpoint takes another"
                raise ValueError(f"{error}{hint}") from None


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
    shapes = jax.eval_shape(lambda: agent.init(0))
    like = {"params": shapes.params, "updates": shapes.updates}
    part = archive.read_part(snapshot.path, snapshot.meta, like)
    return Policy(
        agent,
        jax.device_put(part["params"]),
        config,
        home=home,
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
        mode: str,
        seed: int,
        policy_steps: int,
        updates: int,
    ) -> None:
        self.config = config
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
          obs: of N environments as `Envs.step` returns it, with `is_first`
            (N,), which begins episodes; or of one alone, as the environment
            of `make_env` returns it. Then `reset` begins an episode.

        Returns:
          The action as `Envs.step` or the environment takes it: int32 (N,)
          or (), float32 (N, n) or (n,).

        Raises:
          ValueError: a key is missing or has another shape, or there are not
            as many environments as in the call before.
        """
        name, space = next(iter(self.obs_spaces.items()))
        alone = np.ndim(obs.get(name)) == len(space.shape)
        inputs = {key: self._input(obs, key, alone) for key in self.obs_spaces}
        count = len(inputs[name])
        begins = self._carry is None
        if begins:
            self._carry = self._agent.initial_carry(count)
        if len(self._carry.deter) != count:
            raise ValueError(
                f"observations of {count} environments, expected"
                f" {len(self._carry.deter)} as before; reset() forgets them"
            )
        first = np.zeros(count, bool) if alone else obs["is_first"]
        inputs["is_first"] = np.ones(count, bool) if begins else first
        self._carry, action = self._agent.policy(
            self._params,
            self._carry,
            inputs,
            self._key,
            np.uint32(self._calls % 2**32),
            mode=self.mode == "argmax",
        )
        self._calls += 1
        return np.array(action[0] if alone else action)

    def _input(
        self, obs: Mapping[str, Any], key: str, alone: bool
    ) -> np.ndarray:
        """One key of an observation, (N, ...)."""
        space = self.obs_spaces[key]
        if key not in obs:
            raise ValueError(
                f"an observation lacks {key!r}, expected"
                f" {', '.join(self.obs_spaces)}"
            )
        value = np.asarray(obs[key], space.dtype)
        value = value[None] if alone else value
        if value.shape[1:] != space.shape:
            raise ValueError(
                f"observation {key!r} has shape {np.shape(obs[key])}, expected"
                f" {space.shape}, or that of several environments"
            )
        return value

    def reset(self) -> None:
        """Forgets what it has seen: the next observation begins an episode."""
        self._carry = None

    def reconstruct(self, env: int = 0) -> dict[str, np.ndarray]:
        """How the world model pictures what one environment showed last.

        Args:
          env: which of those of the last call.

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
        """One environment as in training, to be used as any of Gymnasium."""
        return make_env(self.config)

    def make_envs(
        self,
        num: int = 1,
        seed: int = 0,
        length: int = LENGTH,
        filmed: int | None = None,
    ) -> Envs:
        """Environments as in training, with other seeds.

        Args:
          num: how many; with more than one they run in worker processes.
          seed: of all of them.
          length: policy steps after which an episode is cut short.
          filmed: how many episodes have pictures for people. Episode i is to
            be played in environment i % num. See `dreamer/envs/watched.py`.

        Raises:
          ValueError: something is out of range.
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
            self.config.action_repeat,
            timeout=run.env_timeout,
            restarts=run.env_restarts,
        )


def _apart(seed: int) -> int:
    """A seed of 32 bits."""
    return int(np.random.SeedSequence((seed, APART)).generate_state(1)[0])
