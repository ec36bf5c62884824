"""Several environments side by side, stepped as one.

One environment runs in this process, more of them in a worker process each.
Every environment has its own seed, so that a trajectory does not depend on
how many others there are. Episodes follow on each other: the step after
`is_last` starts the next one. An environment that fails is replaced, and all
of them can be saved and restored. Read next: `make.py`, which builds those of
a task, `workers.py` and `host.py`, where they run, and
`dreamer/run/driver.py`, which chooses the actions.
"""

from collections.abc import Callable, Sequence

import gymnasium
import numpy as np

from dreamer.envs.host import LOAD, RESET, SAVE, STEP
from dreamer.envs.pool import (
    PATIENCE,
    Answer,
    EnvError,
    Failure,
    Pool,
    derive,
)
from dreamer.options import ConfigError

__all__ = ["EnvError", "Envs"]


class Envs:
    """Steps environments in lockstep and marks where episodes begin and end.

    An environment that raises, dies, or does not answer in time is replaced by
    a fresh one, which begins an episode instead of the step asked for:
    `is_first` then follows a step without `is_last`. One that runs in this
    process can only raise.

    Args:
        makes: functions of which each builds one environment. With more
            than one they are sent to worker processes.
        seed: seed of all environments together.
        timeout: seconds without an answer after which a worker has hung.
        restarts: number of environments that may be replaced, all in all.

    Attributes:
        num: number of environments N.
        obs_spaces: the space of each observation key.
        action_space: the space of the action.

    Raises:
        ConfigError: if the agent cannot handle the environments.
        EnvError: if an environment cannot be built.
    """

    def __init__(
        self,
        makes: Sequence[Callable[[], gymnasium.Env]],
        seed: int,
        timeout: float = 300.0,
        restarts: int = 10,
    ) -> None:
        self.num = len(makes)
        self._pool = Pool(makes, seed, timeout, restarts)
        self.obs_spaces, self.action_space = self._pool.spaces
        self._seed = seed
        # For the next reset; empty where random numbers just go on.
        self._seeds = [derive(seed, index) for index in range(self.num)]
        self._steps = 0
        self._is_last = np.ones(self.num, bool)
        self._rows = np.zeros(self.num, self._pool.spaces.record)
        # Of a step that was sent: where it begins an episode.
        self._sent: np.ndarray | None = None
        self._last: dict[str, np.ndarray] = {}

    @property
    def reports(self) -> list[str]:
        """Lines for a person on what went wrong; to be taken and cleared."""
        return self._pool.reports

    def reset(self) -> dict[str, np.ndarray]:
        """Starts an episode in every environment, the first time seeded.

        Returns:
            A dict with every key of `obs_spaces` (N, *shape), `reward`
            float32 (N,), and `is_first`, `is_last`, `is_terminal` bool (N,).

        Raises:
            EnvError: if one failure too many happens; all are closed then.
        """
        self._is_last = np.ones(self.num, bool)
        self._send([b""] * self.num)
        return self.receive()

    def step(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        """One policy step in every environment.

        An environment whose last step was `is_last` starts its next episode
        instead: its action is ignored and its reward is 0.

        Args:
            actions: integers (N,) or float32 (N, n) in [-1, 1].

        Returns:
            As `reset`.

        Raises:
            EnvError: as `reset`.
        """
        self.send(actions)
        return self.receive()

    def send(self, actions: np.ndarray) -> None:
        """Begins a step, which goes on while the caller does other things."""
        actions = np.asarray(actions, self.action_space.dtype)
        self._send([action.tobytes() for action in actions])

    def receive(self) -> dict[str, np.ndarray]:
        """What the last step brought, for which this waits if need be.

        Without any step since, what `reset` or `restore` returned. Any number
        of times.

        Raises:
            EnvError: as `reset`.
        """
        if self._sent is not None:
            is_first, self._sent = self._sent, None
            rows, replaced = self._records(self._pool.receive(), is_first)
            self._steps += 1
            self._is_last = rows["is_last"].copy()
            self._last = self._transition(rows, is_first | replaced)
        return self._last

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` needs; waits for a step that was sent.

        Returns:
            For each environment i `env<i>`, uint8 (n,), empty if it cannot be
            saved; `is_last` bool (N,); `steps` and `restarts` int64 ().
        """
        self.receive()
        answers = self._pool.ask([(SAVE, b"")] * self.num)
        for index, answer in enumerate(answers):
            if isinstance(answer, ConfigError):
                self.reports.append(
                    f"environment {index} cannot be saved: {answer}"
                )
        blobs = [
            bytes(answer) if isinstance(answer, memoryview) else b""
            for answer in answers
        ]
        return {
            **{f"env{i}": np.frombuffer(b, "u1") for i, b in enumerate(blobs)},
            "is_last": self._is_last.copy(),
            "steps": np.array(self._steps),
            "restarts": np.array(self._pool.earlier + self._pool.restarts),
        }

    def restore(
        self, state: dict[str, np.ndarray], obs: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], list[int]]:
        """Puts every environment where it stood.

        One that cannot be saved begins an episode, from a seed that depends on
        when it was saved: `is_first` may follow a step without `is_last`.

        Args:
            state: the dict that `state()` returned for as many environments of
                the same settings.
            obs: the dict that `reset` or `step` returned last before that.

        Returns:
            What to go on from, as `step`, and which environments had to leave
            an episode in its middle.

        Raises:
            ConfigError: if the state is of others, or damaged. Begin with a
                `reset` then.
            EnvError: as `reset`.
        """
        blobs = self._read(state, obs)
        # From here on whatever happens, a reset begins differently.
        everyone = range(self.num)
        self._seeds = [derive(self._seed, i, 2, self._steps) for i in everyone]
        answers = self._pool.ask(
            [(LOAD, blob) if blob else None for blob in blobs], PATIENCE
        )
        for index, answer in enumerate(answers):
            if isinstance(answer, ConfigError):
                raise ConfigError(f"environment {index}: {answer}")
            if isinstance(answer, memoryview):
                self._seeds[index] = b""
        lost = [not isinstance(answer, memoryview) for answer in answers]
        begin = np.array(lost) & ~self._is_last
        resets = [self._reset(i) if begin[i] else None for i in everyone]
        rows, _ = self._records(self._pool.ask(resets), ~begin)
        fresh = self._transition(rows, np.ones(self.num, bool))
        merged = {key: np.array(values) for key, values in obs.items()}
        for key, values in fresh.items():
            merged[key][begin] = values[begin]
        self._is_last, self._last = merged["is_last"].copy(), merged
        return merged, np.flatnonzero(begin & ~obs["is_first"]).tolist()

    def close(self) -> None:
        """Ends all environments within seconds; may be called twice."""
        self._pool.close()

    def _send(self, actions: list[bytes]) -> None:
        """A step, or the beginning of an episode where the last has ended."""
        assert self._sent is None, "a step was sent and not received"
        self._sent = self._is_last
        self._pool.send(
            [
                self._reset(index) if self._is_last[index] else (STEP, action)
                for index, action in enumerate(actions)
            ]
        )

    def _reset(self, index: int) -> tuple[bytes, bytes]:
        seed, self._seeds[index] = self._seeds[index], b""
        return RESET, seed

    def _records(
        self, answers: list[Answer], resets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the answers hold, and where a failure was replaced.

        Args:
            answers: the answer of each environment.
            resets: flags (N,) of where no episode is lost by a failure.

        Returns:
            Records (N,) that the next call overwrites, and bool (N,).
        """
        rows = self._rows
        replaced = np.zeros(self.num, bool)
        for index, answer in enumerate(answers):
            if isinstance(answer, Failure):
                lost = not resets[index]
                answer = self._pool.replace(index, answer, lost)
                replaced[index] = True
            if answer:
                rows[index : index + 1].view("u1")[:] = np.frombuffer(
                    answer, np.uint8
                )
        return rows, replaced

    def _transition(
        self, rows: np.ndarray, is_first: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Records (N,) -> arrays of their own."""
        step = {
            name.removeprefix("obs."): rows[name].copy()
            for name in rows.dtype.names
        }
        return {**step, "is_first": is_first.copy()}

    def _read(
        self, state: dict[str, np.ndarray], obs: dict[str, np.ndarray]
    ) -> list[bytes]:
        """Takes in a state's numbers; returns the blobs of environments."""
        saved = sum(name.startswith("env") for name in state)
        if saved != self.num:
            raise ConfigError(
                f"saved environments are {saved}, allowed: {self.num}"
            )
        like = self._transition(self._rows, self._is_last)
        try:
            blobs = [state[f"env{i}"].tobytes() for i in range(self.num)]
            is_last, steps = state["is_last"] != 0, int(state["steps"])
            restarts = int(state["restarts"])
            belong = np.array_equal(is_last, obs["is_last"])
            for key, value in like.items():
                belong &= obs[key].shape == value.shape
                belong &= obs[key].dtype == value.dtype
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ConfigError(f"saved environments lack {error}") from None
        if not belong or steps < 0 or restarts < 0:
            raise ConfigError("saved environments are not as they were saved")
        self._is_last, self._steps = is_last, steps
        self._pool.earlier = restarts - self._pool.restarts
        return blobs
