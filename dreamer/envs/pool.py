"""Environments that are replaced when they fail.

One environment runs in this process, more of them in a worker process each. A
program that others wrote, run for days, fails now and then, and a run should
not end with it; but one that always fails should be seen. So there is a number
of failures that is put up with. Read next: `workers.py` for one environment,
`vector.py` for what they are asked.
"""

from collections.abc import Callable, Sequence

import gymnasium
import numpy as np

from dreamer.envs.channel import Deadline
from dreamer.envs.host import RESET, Spaces
from dreamer.envs.workers import GRACE, Failure, Local, Worker
from dreamer.options import ConfigError

# Seconds that an environment has at least to be built or restored.
PATIENCE = 120.0

# A request and its data, or nothing to ask for.
Request = tuple[bytes, bytes] | None
# The answer, or why there is none: refused, or failed.
Answer = memoryview | ConfigError | Failure | None


class EnvError(RuntimeError):
    """An environment failed. The message holds its own traceback."""


class Pool:
    """Asks environments all at once, and replaces those that fail.

    Args:
        makes: functions of which each builds one environment.
        seed: seed of all environments together.
        timeout: seconds without an answer after which a worker has hung.
        limit: number of environments that may be replaced, all in all.

    Attributes:
        spaces: the spaces of observations and actions.
        restarts: number of environments that have been replaced.
        earlier: the same, in runs that this one continues.
        reports: lines for a person, one on each replacement.

    Raises:
        ConfigError: if the agent cannot handle the environments.
        EnvError: if an environment cannot be built.
    """

    def __init__(
        self,
        makes: Sequence[Callable[[], gymnasium.Env]],
        seed: int,
        timeout: float,
        limit: int,
    ) -> None:
        self.restarts = self.earlier = 0
        self.reports: list[str] = []
        self._makes, self._seed = makes, seed
        self._timeout, self._limit = timeout, limit
        self._place = Local if len(makes) == 1 else Worker
        self._envs: list[Local | Worker] = []
        try:
            self.spaces = self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> Spaces:
        """Builds all environments side by side."""
        try:
            for make in self._makes:
                self._envs.append(self._place(make))
            deadline = Deadline(max(self._timeout, PATIENCE))
            found: list[Spaces] = []
            for env in self._envs:
                found.append(Spaces.from_json(bytes(env.answer(deadline))))
                if found[-1] != found[0]:
                    raise ConfigError(
                        "environments of one run differ:"
                        f" {found[-1]} beside {found[0]}"
                    )
        except Failure as failure:
            raise EnvError(
                f"while it started, an environment {failure.text}"
            ) from None
        return found[0]

    def ask(
        self, requests: Sequence[Request], patience: float = 0.0
    ) -> list[Answer]:
        """As `send`, then `receive`."""
        self.send(requests, patience)
        return self.receive(patience)

    def send(self, requests: Sequence[Request], patience: float = 0.0) -> None:
        """Asks every environment for something, or for nothing.

        Args:
            requests: one request for each environment; see `host.py`.
            patience: seconds to wait for a worker that is not listening, if
                more than the timeout.
        """
        deadline = Deadline(max(self._timeout, patience))
        self._asked = list(zip(self._envs, requests, strict=True))
        for env, request in self._asked:
            if request:
                env.request(*request, deadline)

    def receive(self, patience: float = 0.0) -> list[Answer]:
        """What they answer, until they are asked again.

        Args:
            patience: seconds to wait for answers, if more than the timeout.
        """
        deadline = Deadline(max(self._timeout, patience))
        answers: list[Answer] = []
        for env, request in self._asked:
            try:
                answers.append(request and env.answer(deadline))
            except (ConfigError, Failure) as error:
                answers.append(error)
        return answers

    def replace(self, index: int, failure: Failure, lost: bool) -> memoryview:
        """Builds an environment anew and begins an episode.

        Args:
            index: number of the environment, from 0.
            failure: the reason why it is of no more use.
            lost: whether the failure has cut an episode short.

        Returns:
            The record of the episode's beginning, until it is asked again.

        Raises:
            EnvError: if there have been too many failures; all are closed.
        """
        while self.restarts < self._limit:
            self.restarts += 1
            closed = (
                "its episode is closed as a truncation and " if lost else ""
            )
            self.reports.append(
                f"environment {index} {failure.summary}; {closed}it was "
                f"started again ({self.restarts} of {self._limit})"
            )
            try:
                return self._begin_anew(index)
            except Failure as error:
                failure, lost = error, False
        self.close()
        text = failure.text.rstrip()
        end = "\n" if "\n" in text else "; "  # below a traceback
        raise EnvError(
            f"environment {index} {text}{end}no replacement is left of"
            f" run.env_restarts={self._limit}"
        )

    def _begin_anew(self, index: int) -> memoryview:
        self._envs[index].close(Deadline(0.0))
        env = self._envs[index] = self._place(self._makes[index])
        try:
            text = env.answer(Deadline(max(self._timeout, PATIENCE)))
            spaces = Spaces.from_json(bytes(text))
        except ConfigError as error:
            raise Failure(f"could not be built again: {error}") from None
        if spaces != self.spaces:
            raise Failure(
                "could not be built again: it has"
                f" {spaces}, and had {self.spaces}"
            )
        count = self.earlier + self.restarts
        deadline = Deadline(self._timeout)
        env.request(RESET, derive(self._seed, index, 1, count), deadline)
        return env.answer(deadline)

    def close(self) -> None:
        """Ends all environments within seconds; may be called twice."""
        envs, self._envs = self._envs, []
        for env in envs:
            env.hang_up()
        deadline = Deadline(GRACE)
        for env in envs:
            env.close(deadline)


def derive(seed: int, index: int, *more: int) -> bytes:
    """The seed of an environment's next episode, as `RESET` takes it.

    Args:
        seed: seed of all environments together.
        index: number of the environment, from 0.
        more: numbers that tell its episodes apart: none for the first one, 1
            and the number of all replacements after a failure, 2 and the
            number of all steps after a restoration.
    """
    entropy = np.random.SeedSequence((seed, index, *more))
    return int(entropy.generate_state(1)[0]).to_bytes(8, "little")
