"""The parts of a run: built, saved, restored, logged and closed together.

`Run(config)` builds everything that `dreamer/train.py` loops over, or refuses
what cannot work before it has created or changed a file. `act` and `learn`
are the two halves of a loop's turn; `log` and `save` report them. Paper:
arXiv 2301.04104v2. Next: driver.py and learner.py, which do the work.
"""

import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from dreamer.agent.agent import Agent
from dreamer.config import Config, ConfigError, check_resume, load, save
from dreamer.envs.vector import Envs, make_envs
from dreamer.ratio import Ratio
from dreamer.replay import Replay, bytes_per_step, fits_in_ram
from dreamer.run.checkpoint import Checkpoints
from dreamer.run.device import describe_device, select_device
from dreamer.run.driver import Driver, replay_fields
from dreamer.run.learner import Learner
from dreamer.run.logger import Logger
from dreamer.run.plan import describe
from dreamer.train_ratio import updates_owed


class Run:
    """One run; a context manager that closes whatever it opened.

    If the logdir holds a checkpoint, the run goes on from there.

    Args:
      config: all settings.

    Attributes:
      config: as given.
      logdir: where everything is written.
      learner: makes the updates.
      score: of the last episode that ended, if one has.

    Raises:
      ValueError: something that a person chose cannot work, in one line. No
        file has been created or changed.
      EnvError: an environment does not start.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.logdir = Path(config.logdir)
        dtype = select_device(config.jax)
        check_logdir(config)
        with contextlib.ExitStack() as opened:
            self._checkpoints = Checkpoints(self.logdir)
            opened.callback(self._checkpoints.close)
            saved_at = self._checkpoints.latest
            self._envs = make_envs(with_fresh_episodes(config, saved_at or 0))
            opened.callback(self._envs.close)
            self._agent = Agent(
                self._envs.obs_spaces,
                self._envs.action_space,
                config.agent,
                dtype=dtype,
                context=config.replay_context,
            )
            self._replay = make_replay(
                config, self._envs, self._agent, saved_at or 0
            )
            self._restore()
            opened.callback(self.learner.close)
            self._logger = open_logdir(config, self.frames)
            opened.callback(self._logger.close)
            self._opened = opened.pop_all()
        self._saved_at = saved_at
        self._logged = self._clocks()

    def _clocks(self) -> tuple[float, int, int, float]:
        """What speeds are differences of."""
        waited = self.learner.waited
        return time.monotonic(), self.policy_steps, self.updates, waited

    def _restore(self) -> None:
        """Puts ratio, driver and learner where the run stands."""
        config = self.config
        state, pending = self._agent.init(config.seed), None
        counters: dict[str, Any] = {"policy_steps": 0}
        self._ratio = Ratio(
            updates_owed(config.run.train_ratio, config.batch_steps)
        )
        if self._checkpoints.latest is not None:
            state, pending, counters = self._checkpoints.restore(
                state, self._replay
            )
            self._ratio.restore(counters["ratio"])
        self.score: float | None = counters.get("score")
        # Policy step of the first update, from which on ratios count.
        self._first_update: int | None = counters.get("first_update")
        act_key, learn_key = jax.random.split(jax.random.key(config.seed))
        self._driver = Driver(
            self._envs,
            self._agent,
            self._replay,
            act_key,
            counters["policy_steps"],
        )
        self.learner = Learner(
            self._agent, state, self._replay, config.batch_size, learn_key
        )
        self.learner.compile()
        if pending is not None:
            self.learner.restore_pending(pending)

    @property
    def policy_steps(self) -> int:
        """Actions taken so far, over all environments."""
        return self._driver.policy_steps

    @property
    def frames(self) -> int:
        """Emulated frames so far."""
        return self.policy_steps * self.config.action_repeat

    @property
    def updates(self) -> int:
        """Gradient updates so far."""
        return self.learner.updates

    @property
    def finished(self) -> bool:
        """Whether all of the run's policy steps are done."""
        return self.policy_steps >= self.config.run.steps

    @property
    def realised_ratio(self) -> float:
        """Time steps trained on per policy step since the first update.

        Comparable with `run.train_ratio`; the first update is free.
        """
        if self._first_update is None or self.updates < 2:
            return 0.0
        steps = self.policy_steps - self._first_update
        return (self.updates - 1) * self.config.batch_steps / max(steps, 1)

    def describe(self) -> str:
        """The lines that a run prints before its first step."""
        lines = [
            describe_device(self._agent.dtype),
            describe(
                self.config,
                self._agent,
                self._replay,
                self.learner.state.params,
            ),
            f"Logs to {self.logdir}",
        ]
        if self.policy_steps:
            lines.append(
                f"Continues at policy step {self.policy_steps:,} after"
                f" {self.updates:,} updates"
            )
        return "\n".join(lines)

    def act(self) -> None:
        """One policy step in every environment; logs what episodes ended.

        Raises:
          EnvError: an environment failed.
        """
        for episode in self._driver.step(self.learner.state.params):
            self.score = episode.score
            self._logger.episode(self.frames, episode.score, episode.length)

    def learn(self) -> None:
        """The updates that these policy steps bought, often none."""
        if self._replay.windows < self.config.batch_steps:
            return
        last = self.policy_steps
        for step in range(last - self._envs.num + 1, last + 1):
            for _ in range(self._ratio(step)):
                if self._first_update is None:
                    self._first_update = step
                self.learner.update()

    def wait(self) -> None:
        """Waits until the device has made every update asked for."""
        jax.block_until_ready(self.learner.state)

    def log(self) -> None:
        """Writes one row: means since the last row, counters and speeds.

        Writes nothing if there has been no step since.
        """
        then, steps, updates, waited = self._logged
        if self.policy_steps == steps:
            return
        metrics = {f"train/{k}": v for k, v in self.learner.metrics().items()}
        # After the metrics, which wait for the device.
        self._logged = self._clocks()
        seconds = self._logged[0] - then
        trained = (self.updates - updates) / seconds
        metrics |= {
            "policy_steps": self.policy_steps,
            "frames": self.frames,
            "updates": self.updates,
            "replay/replay_ratio": self.realised_ratio,
            "replay/items": len(self._replay),
            "fps/policy": (self.policy_steps - steps) / seconds,
            "fps/train": trained * self.config.batch_steps,
            "fps/updates": trained,
            "fps/waiting": (self.learner.waited - waited) / seconds,
        }
        self._logger.scalars(self.frames, metrics)

    def save(self) -> None:
        """Writes a checkpoint, unless there was no step since the last.

        A row of metrics goes before it, so that no mean begins before a
        checkpoint and ends after it: a run that continues there loses none.

        Raises:
          OSError: the disk is full or not writable.
        """
        if self._saved_at == self.policy_steps:
            return
        self.log()
        pending = self.learner.pending()  # before the replay is saved
        counters = {
            "policy_steps": self.policy_steps,
            "updates": self.updates,
            "ratio": self._ratio.state(),
            "first_update": self._first_update,
            "score": self.score,
        }
        self._checkpoints.save(
            self.policy_steps,
            self.learner.state,
            self._replay,
            pending,
            counters,
        )
        self._saved_at = self.policy_steps
        self._logger.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Waits for what is being written, saves nothing new, closes all."""
        self._opened.__exit__(*error)


def check_logdir(config: Config) -> None:
    """Looks, without touching it, whether the run may use its logdir.

    Raises:
      ConfigError: it is not writable, or holds a run of other settings.
    """
    logdir = Path(config.logdir)
    folders = (logdir, *logdir.absolute().parents)
    folder = next(folder for folder in folders if folder.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"logdir={logdir}: {folder} is not writable")
    settings = logdir / "config.yaml"
    if settings.exists():
        check_resume(load(["--configs", str(settings)]), config)


def open_logdir(config: Config, frames: int) -> Logger:
    """Creates the logdir, if need be, and the first files in it.

    Args:
      config: saved there.
      frames: where the run stands; what was logged later is dropped.

    Raises:
      ValueError: it cannot be written, or what is there is not a log.
    """
    logdir = Path(config.logdir)
    try:
        logger = Logger(logdir, config, config.logger.outputs)
        with contextlib.ExitStack() as unless_all_went_well:
            unless_all_went_well.callback(logger.close)
            logger.truncate_after(frames)
            save(config, logdir / "config.yaml")
            unless_all_went_well.pop_all()
    except OSError as error:
        raise ConfigError(f"logdir={logdir}: {error.strerror}") from error
    return logger


def with_fresh_episodes(config: Config, policy_steps: int) -> Config:
    """The settings to build environments with.

    An environment always starts with a new episode. With the seed that the
    run began with, one that continues would play its first episodes again.
    """
    if policy_steps == 0:
        return config
    entropy = np.random.SeedSequence((config.seed, policy_steps))
    seed = int(entropy.generate_state(1)[0])
    return dataclasses.replace(config, seed=seed)


def make_replay(
    config: Config, envs: Envs, agent: Agent, policy_steps: int
) -> Replay:
    """A replay no larger than the run's own steps.

    Args:
      config: all settings.
      envs: whose steps it holds.
      agent: whose latents it holds.
      policy_steps: done before; they fit whatever `run.steps` is now.

    Raises:
      ValueError: names the RAM that is needed and the RAM there is.
    """
    fields, latents = replay_fields(envs), agent.latents
    window = config.replay_context + config.batch_length
    steps = max(config.run.steps, policy_steps)
    each = -(-min(config.replay.size, steps) // envs.num)  # rounded up
    capacity = max(each, window) * envs.num
    fits_in_ram(capacity, bytes_per_step(fields, latents))
    return Replay(
        fields,
        latents,
        envs=envs.num,
        capacity=capacity,
        context=config.replay_context,
        length=config.batch_length,
        seed=config.seed,
        online=config.replay.online,
    )
