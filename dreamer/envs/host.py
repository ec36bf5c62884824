"""One environment that answers requests in bytes, wherever it runs.

What a step brings is one record of fixed size: the observation, the reward and
how the episode stands. Read next: `workers.py`, which carries requests to
another process, and `vector.py`, which makes them.
"""

import dataclasses
import json
import math
import textwrap
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.options import ConfigError
from dreamer.spaces import FLAGS, Space

# What is asked for, with its data.
START = b"+"  # builds the environment; answered by its spaces
RESET = b"r"  # starts an episode, with a seed of 8 bytes or as it goes on
STEP = b"s"  # an action; both are answered by a record
SAVE = b"<"  # answered by a state, empty if there is none
LOAD = b">"  # such a state

# How it is answered.
DONE = b"."
REFUSED = b"?"  # a line that says why; the environment is as good as before
FAILED = b"!"  # a summary of one line, a line feed, a traceback if it helps

FINITE = "finite numbers that float32 can hold"


class Unusable(Exception):
    """What an environment gave is not what its spaces promise; one line."""


class Spaces(NamedTuple):
    """What an environment's observations and actions look like."""

    obs: dict[str, Space]
    action: Space

    @property
    def record(self) -> np.dtype:
        """Of a record; observations have "obs." before their names.

        Of the flags it lacks `is_first`, which is known without asking.
        """
        obs = [(f"obs.{k}", s.dtype, s.shape) for k, s in self.obs.items()]
        flags = [(flag, "?") for flag in FLAGS if flag != "is_first"]
        return np.dtype([*obs, ("reward", "f4"), *flags])

    def to_json(self) -> bytes:
        """For another process."""
        obs = {k: dataclasses.asdict(s) for k, s in self.obs.items()}
        return json.dumps([obs, dataclasses.asdict(self.action)]).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Spaces":
        """What `to_json` was of."""
        obs, action = json.loads(text)

        def space(kind: str, shape: list[int], classes: int) -> Space:
            return Space(kind, tuple(shape), classes)

        return cls({k: space(**s) for k, s in obs.items()}, space(**action))


class Host:
    """Builds an environment when asked to, and does what it is told.

    Args:
        make: function that builds the environment.
    """

    def __init__(self, make: Callable[[], gymnasium.Env]) -> None:
        self._make = make
        self._env: gymnasium.Env | None = None
        self._work = {
            START: self._start,
            RESET: self._reset,
            STEP: self._step,
            SAVE: self._save,
            LOAD: self._load,
        }

    def answer(self, request: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Does it, and says how it went; exceptions become answers."""
        try:
            return DONE, self._work[request](data)
        except Unusable as error:
            return FAILED, _encoded(f"{error}\n")
        except KeyboardInterrupt:
            raise
        # What others wrote may end itself with SystemExit, or raise what is
        # no Exception, as Rust does; no reason to end the program.
        except BaseException as error:
            # As text: an exception may not survive the way to elsewhere.
            lines = traceback.format_exception_only(error)
            line = textwrap.shorten("".join(lines), 300)
            if request == SAVE:
                return REFUSED, _encoded(line)
            refusals = {START: ConfigError, LOAD: ValueError}
            if isinstance(error, refusals.get(request, ())):
                return REFUSED, _encoded(" ".join(str(error).split()))
            return FAILED, _encoded(f"{line}\n{traceback.format_exc()}")

    def close(self) -> None:
        """Ends the environment, as well as that goes."""
        env, self._env = self._env, None
        if env is not None:
            try:
                env.close()
            except KeyboardInterrupt:
                raise
            except BaseException:
                pass

    def _start(self, _: bytes) -> bytes:
        self._env = self._make()
        obs_space = self._env.observation_space
        self._spaces = Spaces(
            {key: to_space(space) for key, space in obs_space.items()},
            to_space(self._env.action_space, action=True),
        )
        self._record = np.zeros((), self._spaces.record)
        obs = self._spaces.obs.items()
        self._vectors = [key for key, x in obs if x.dtype == np.float32]
        return self._spaces.to_json()

    def _reset(self, data: bytes) -> bytes:
        seed = int.from_bytes(data, "little") if data else None
        obs, _ = self._env.reset(seed=seed)
        return self._recorded(obs, 0.0, False, False)

    def _step(self, data: bytes) -> bytes:
        space = self._spaces.action
        action = np.frombuffer(data, space.dtype).reshape(space.shape).copy()
        if space.kind == "discrete":
            action = np.int64(action)
        obs, reward, terminated, truncated, info = self._env.step(action)
        is_last = bool(terminated) or bool(truncated)
        is_terminal = bool(info.get("is_terminal", terminated))
        return self._recorded(obs, reward, is_last, is_terminal)

    def _recorded(
        self, obs: dict[str, Any], reward: Any, is_last: bool, terminal: bool
    ) -> bytes:
        record = self._record
        with np.errstate(all="ignore"):  # what becomes infinite is refused
            for key in self._spaces.obs:
                record[f"obs.{key}"] = obs[key]
            record["reward"] = reward
        self._check_finite(obs, reward)
        record["is_last"] = is_last
        record["is_terminal"] = terminal
        return record.tobytes()

    def _check_finite(self, obs: dict[str, Any], reward: Any) -> None:
        """One nan in the replay would spoil every update that sees it."""
        if not math.isfinite(self._record["reward"]):
            raise Unusable(f"reward is {reward}, allowed: {FINITE}")
        for key in self._vectors:
            good = np.isfinite(self._record[f"obs.{key}"])
            if not good.all():
                wrong = np.ravel(obs[key])[~good][0]
                raise Unusable(
                    f"observation {key!r} is {wrong}, allowed: {FINITE}"
                )

    def _save(self, _: bytes) -> bytes:
        if not hasattr(self._env, "set_state"):
            return b""
        state = getattr(self._env, "get_state", bytes)()
        # Others may use these names for something else.
        return state if isinstance(state, bytes) else b""

    def _load(self, data: bytes) -> bytes:
        if not hasattr(self._env, "set_state"):
            raise ValueError("this environment cannot be restored")
        self._env.set_state(data)
        return b""


def _encoded(text: str) -> bytes:
    """As UTF-8; names of files may hold what it has no room for."""
    return text.encode(errors="backslashreplace")


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
