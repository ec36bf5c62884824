"""Any Gymnasium environment, in the shapes that the agent understands.

Tasks named `gym_<id>` come here, for example `gym_CartPole-v1`. Modules of
`env.import`, or the one in `gym_<module>:<id>`, are imported first and may
register others (`modules.py`). Observations become a flat dict of images,
vectors and discrete values, continuous actions are scaled from [-1, 1] to
their bounds. examples/README.md is the guide to all this.

A run that is interrupted goes on in the middle of an episode if the class of
the environment has two methods:

    get_state() -> bytes: all of its state, its random numbers included
        (`self.np_random.bit_generator.state`), unchanged by the call.
    set_state(state: bytes): makes this environment, maybe of another process
        and never reset, go on as the one that was saved; `ValueError` if it
        cannot. Do not unpickle: checkpoints come from strangers too.

Otherwise, or with wrappers beside Gymnasium's time limit and its check of the
order of calls, the episode counts as truncated and a new one begins.
`blob.py` turns arrays and JSON into bytes. Read next: `convert.py` for
observations, `vector.py`, which steps several environments.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from dreamer.config import GymConfig
from dreamer.envs import proofs  # noqa: F401  (registers its tasks)
from dreamer.envs.blob import pack, unpack
from dreamer.envs.convert import Converter, converter, is_image, to_number
from dreamer.envs.host import Unusable
from dreamer.envs.modules import import_module
from dreamer.options import ConfigError
from dreamer.spaces import RESERVED

# Wrappers that `gymnasium.make` adds, and all that they remember.
REMEMBERED = {TimeLimit: "_elapsed_steps", OrderEnforcing: "_has_reset"}


def make_gym(
    env_id: str, config: GymConfig, render: bool = False
) -> "GymAdapter":
    """Creates the registered environment of that id and adapts it.

    With `render`, its `render()` gives RGB arrays, if it offers them.

    Raises:
        ConfigError: if there is none, if a package that it needs is missing,
            or if the agent cannot handle its observations or actions.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        import_module(module, f"task is gym_{env_id}")
    try:
        # Without Gymnasium's checker, whose warnings are for whoever writes
        # an environment: what the agent relies on, `convert.py` and `host.py`
        # check in every step.
        env = gymnasium.make(env_id, disable_env_checker=True)
        modes = env.metadata.get("render_modes") or ()
    except (gymnasium.error.Error, ImportError) as error:
        hint = ""
        if name not in gymnasium.registry:
            near = difflib.get_close_matches(name, gymnasium.registry, 1)
            prefix = f"gym_{module}:" if module else "gym_"
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            hint += "; --env.import names modules that register others"
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"task is gym_{env_id}: {reason}{hint}") from None
    if render and "rgb_array" in modes:
        env.close()
        try:
            env = gymnasium.make(
                env_id, disable_env_checker=True, render_mode="rgb_array"
            )
        except Exception as error:
            reason = unrenderable(error)
            raise ConfigError(f"video of gym_{env_id}: {reason}") from None
    return GymAdapter(env, config)


def unrenderable(error: Exception) -> str:
    """In a line, that an environment cannot be rendered, and why."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be rendered: {reason}"


class GymAdapter(gymnasium.Wrapper):
    """Presents an environment with canonical spaces.

    Observations are a dict with sorted keys; an observation that is no dict
    gets the key `image`, `vector` or `discrete`. uint8 arrays with two or
    three dimensions become images uint8 (height, width, channels) of
    `config.size`, other arrays vectors float32 (n,), discrete values int64 ()
    or (n,) counted from 0. Actions are an int counted from 0, or float32 (n,)
    in [-1, 1].

    Observations that are not as their space says, and rewards that are no
    number, raise `Unusable`.

    Raises:
        ConfigError: if a space is not supported or a key is reserved.
    """

    def __init__(self, env: gymnasium.Env, config: GymConfig) -> None:
        super().__init__(env)
        self._repeat = config.repeat
        self._is_dict = isinstance(env.observation_space, spaces.Dict)
        if self._is_dict:
            sources = dict(sorted(env.observation_space.items()))
        else:
            sources = {
                _default_key(env.observation_space): (env.observation_space)
            }
        if not sources:
            raise ConfigError(
                f"observation space is {env.observation_space}, allowed: a"
                " Dict with at least one key"
            )
        self._converters: dict[str, Converter] = {}
        targets: dict[str, spaces.Space] = {}
        for key, space in sources.items():
            if key in RESERVED:
                raise ConfigError(
                    f"observation key is {key!r}, allowed: any name but "
                    f"{', '.join(sorted(RESERVED))}"
                )
            name = f"observation {key!r}" if self._is_dict else "observation"
            targets[key], self._converters[key] = converter(
                name, space, config.size
            )
        self.observation_space = spaces.Dict(targets)
        self.action_space, self._to_action = _convert_action(env.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode; arguments and result as in Gymnasium."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._to_obs(obs), info

    def step(
        self, action: Any
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Repeats the action, sums rewards, stops where an episode ends.

        The info is the last one, but `is_terminal` if any of them was.
        """
        action = self._to_action(action)
        total, is_terminal = 0.0, False
        for _ in range(self._repeat):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += to_number("reward", reward)
            is_terminal |= bool(info.get("is_terminal"))
            if terminated or truncated:
                break
        if is_terminal:
            info = {**info, "is_terminal": True}
        return self._to_obs(obs), total, terminated, truncated, info

    def get_state(self) -> bytes:
        """All that `set_state` needs, or nothing if this cannot be saved."""
        wrappers = self._wrappers()
        if wrappers is None:
            return b""
        state = self.unwrapped.get_state()
        if not isinstance(state, bytes):  # the name has another meaning here
            return b""
        remembered = [getattr(w, REMEMBERED[type(w)]) for w in wrappers]
        env = np.frombuffer(state, np.uint8)
        return pack({"wrappers": remembered}, env=env)

    def set_state(self, blob: bytes) -> None:
        """Goes on where an environment of the same id was saved.

        Raises:
            ValueError: if this is no such state.
        """
        facts, arrays = unpack(blob)
        wrappers, saved = self._wrappers(), facts.get("wrappers")
        if (
            wrappers is None
            or not isinstance(saved, list)
            or len(saved) != len(wrappers)
            or not all(isinstance(value, int | None) for value in saved)
            or "env" not in arrays
        ):
            raise ValueError("state is not of this Gymnasium environment")
        for wrapper, value in zip(wrappers, saved, strict=True):
            setattr(wrapper, REMEMBERED[type(wrapper)], value)
        self.unwrapped.set_state(arrays["env"].tobytes())

    def _wrappers(self) -> list[gymnasium.Wrapper] | None:
        """What is around the environment; none if it cannot be saved."""
        env, found = self.env, []
        while isinstance(env, gymnasium.Wrapper):
            if type(env) not in REMEMBERED:
                return None
            found.append(env)
            env = env.env
        both = hasattr(env, "get_state") and hasattr(env, "set_state")
        return found if both else None

    def _to_obs(self, obs: Any) -> dict[str, np.ndarray]:
        if self._is_dict:
            given = obs.keys() if isinstance(obs, Mapping) else ()
            missing = self._converters.keys() - given
            if missing:
                raise Unusable(
                    f"observation lacks {min(missing)!r}, allowed: a dict with"
                    " all keys of its space"
                )
        return {
            key: convert(obs[key] if self._is_dict else obs)
            for key, convert in self._converters.items()
        }


def _default_key(space: spaces.Space) -> str:
    if isinstance(space, spaces.Box):
        return "image" if is_image(space) else "vector"
    return "discrete"


def _convert_action(
    space: spaces.Space,
) -> tuple[spaces.Space, Callable[[Any], Any]]:
    """The canonical space of the action and the way out of it."""
    if isinstance(space, spaces.Discrete):
        # Of the space's own type, or Gymnasium says that it is not in it.
        start, own = int(space.start), space.dtype.type
        return spaces.Discrete(int(space.n)), lambda x: own(int(x) + start)
    if (
        not isinstance(space, spaces.Box)
        or not np.issubdtype(space.dtype, np.floating)
        or 0 in space.shape
    ):
        raise ConfigError(
            f"action space is {space}, allowed: Discrete, or Box of floats "
            "with at least one entry"
        )
    if not space.is_bounded():
        raise ConfigError(
            f"action space is {space}, allowed: finite bounds in every "
            "dimension"
        )
    low = space.low.astype(np.float64)
    high = space.high.astype(np.float64)
    with np.errstate(over="ignore"):
        width = high - low
    if not np.isfinite(width).all():
        raise ConfigError(
            f"action space is {space}, allowed: bounds whose difference"
            " float64 can hold"
        )

    def scale(action: np.ndarray) -> np.ndarray:
        unit = (np.clip(action, -1.0, 1.0).reshape(space.shape) + 1.0) / 2.0
        # Clipped again: rounding to float32 may step over a bound.
        return np.clip(
            (low + unit * width).astype(space.dtype),
            space.low,
            space.high,
        )

    count = int(np.prod(space.shape))
    return spaces.Box(-1.0, 1.0, (count,), np.float32), scale
