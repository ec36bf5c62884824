"""The parts of a run: built, saved, restored, logged and closed together.

`Run(config)` builds everything that `dreamer/train.py` loops over, or refuses
what cannot work before it has created or changed a file. `act` and `learn`
are the two halves of a loop's turn; `log` and `save` report them. Paper:
arXiv 2301.04104v2. Next: driver.py and learner.py, which do the work.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from dreamer.agent.agent import Agent
from dreamer.agent.types import Params
from dreamer.config import Config
from dreamer.envs.make import make_envs
from dreamer.options import ConfigError
from dreamer.run import logdir
from dreamer.run.budget import UpdateBudget
from dreamer.run.checkpoint import Checkpoints
from dreamer.run.device import (
    describe_device,
    describe_devices,
    join,
    make_layout,
    select_device,
)
from dreamer.run.dreams import Dreams
from dreamer.run.driver import Driver, Episode
from dreamer.run.learner import Learner
from dreamer.run.parts import check_complete, make_replay
from dreamer.run.patience import Patience
from dreamer.run.plan import describe
from dreamer.run.saver import Parts, Saver
from dreamer.run.when import StopSignal
from dreamer.settings import to_yaml
from dreamer.status import Status


class Run:
    """One run; a context manager that closes whatever it opened.

    If the logdir holds a checkpoint, the run goes on from there, as if it
    had never been interrupted: on one machine with the same bits, but for
    environments whose state cannot be saved.

    Args:
      config: all settings.

    Attributes:
      config: as given.
      logdir: where everything is written.
      learner: makes the updates.
      score: of the last episode that ended, if one has.

    Raises:
      ConfigError: something that a person chose cannot work, in one line. No
        file has been created or changed.
      EnvError: an environment does not start.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.logdir = Path(config.logdir)
        self.peers = join(config.jax)
        own = self.peers.share(config)  # settings of this process's parts
        folder = self.peers.folder(self.logdir)
        self._news: list[str] = []
        dtype = select_device(config.jax)
        layout = make_layout(config)
        logdir.look(config, self.peers)
        with contextlib.ExitStack() as opened:
            self._checkpoints = Checkpoints(
                folder,
                to_yaml(config),
                leader=None if self.peers.leads else self.logdir,
            )
            newest = self._checkpoints.latest
            self._envs = make_envs(own)
            opened.callback(self._envs.close)
            self._agent = Agent(
                self._envs.obs_spaces,
                self._envs.action_space,
                config.agent,
                dtype=dtype,
                context=config.replay_context,
                layout=layout,
            )
            done = -(-(newest or 0) // self.peers.count)
            self._replay = make_replay(
                own, self._envs, self._agent, done, self.peers.sharing()
            )
            self._restore(own, folder)
            opened.callback(self.learner.close)
            self._take(folder, newest, opened)
            self._opened = opened.pop_all()

    def _take(
        self, folder: Path, newest: int | None, opened: contextlib.ExitStack
    ) -> None:
        """Locks the logdir and begins to write there.

        Args:
          folder: of this process in the logdir.
          newest: policy steps of the newest checkpoint when it was looked at.
          opened: gets what is to be closed.
        """
        config = self.config
        self._logger, warning = logdir.take(
            config,
            self.policy_steps,
            lambda: self._checkpoints.latest == newest,
            opened,
            self.peers,
        )
        self._news += [warning] if warning else []
        opened.callback(self._checkpoints.close)
        self._status = Status(folder, config.run.steps, self.policy_steps)
        self.tell("running")
        self._dreams = Dreams(
            self._agent, self._replay, self._logger, config, self.updates
        )
        opened.callback(self._dreams.close)
        self._logged = self._clocks()
        self._saver = Saver(
            self._checkpoints,
            self._logger,
            Patience(folder, config.run.disk_patience),
            self.peers,
            None if self._checkpoints.saved is None else self._progress(),
        )

    def _progress(self) -> tuple[int, int]:
        """How far the run is: policy steps and updates."""
        return self.policy_steps, self.updates

    def _clocks(self) -> tuple[float, int, int, float]:
        """What speeds are differences of."""
        waited = self.learner.waited
        return time.monotonic(), self.policy_steps, self.updates, waited

    def _restore(self, own: Config, folder: Path) -> None:
        """Puts ratio, driver and learner where the run stands.

        Args:
          own: settings of this process's parts.
          folder: for batches of updates that were not applied.
        """
        config = self.config
        self._budget = UpdateBudget(config.run.train_ratio, config.batch_steps)
        if self._checkpoints.common(self.peers):
            # Shapes alone, so that the device holds one state, not two.
            with logdir.explained(config):
                state, arrays, counters = self._checkpoints.restore(
                    self._agent.state_shapes,
                    self._replay,
                    self._agent.place,
                    self.peers,
                )
            check_complete(arrays, counters)
            self._budget.restore(counters)
        else:
            state, arrays, counters = self._agent.init(config.seed), {}, {}
        self.score: float | None = counters.get("score")
        act_key, learn_key = jax.random.split(jax.random.key(config.seed))
        act_key = self.peers.own_key(act_key)
        self._driver = Driver(self._envs, self._agent, self._replay, act_key)
        self.learner = Learner(
            self._agent,
            state,
            self._replay,
            own.batch_size,
            learn_key,
            folder,
            config.run.nonfinite_limit,
        )
        self.learner.compile()
        if counters:
            self.learner.restore(arrays["learner"])
            steps = counters["policy_steps"] // self.peers.count
            self._restore_envs(arrays, steps)
        else:
            self._driver.start()

    def _restore_envs(
        self, arrays: dict[str, dict[str, np.ndarray]], policy_steps: int
    ) -> None:
        """Where an environment cannot go on, it begins a new episode."""
        try:
            abandoned = self._driver.restore(
                policy_steps, arrays["driver"], arrays["envs"]
            )
        except ConfigError as error:
            # Emulators of another version play on differently.
            self._news.append(f"{error}; all environments begin new episodes")
            self._driver.start()
            return
        self._news += [
            f"The state of environment {index} cannot be saved: its episode"
            " is closed as a truncation and a new one begins"
            for index in abandoned
        ]

    @property
    def policy_steps(self) -> int:
        """Actions taken so far, over all environments of all processes."""
        return self._driver.policy_steps * self.peers.count

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
        """Whether all of the run's policy steps and updates are done."""
        done = self.policy_steps >= self.config.run.steps
        return done and not self._budget.owed

    @property
    def realised_ratio(self) -> float:
        """Time steps trained on per policy step since the first update."""
        return self._budget.realised(self.policy_steps, self.updates)

    def describe(self) -> str:
        """The lines that a run prints before its first step."""
        if not self.peers.leads:
            who = f"Process {self.peers.index} of {self.peers.count}"
            return "\n".join([who, *self.news()])
        lines = [
            describe_device(self._agent.dtype),
            describe_devices(self._agent.layout),
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
        return "\n".join([*filter(None, lines), *self.news()])

    def news(self) -> list[str]:
        """Lines for a person about what went wrong since the last call."""
        news = self._news
        for reports in (
            self._envs.reports,
            self.learner.reports,
            self._checkpoints.reports,
            self._dreams.reports,
        ):
            news += reports
            reports.clear()
        self._news = []
        return news

    def act(self) -> None:
        """One policy step in every environment; logs what episodes ended.

        Raises:
          EnvError: an environment failed.
        """
        ended = self._driver.step(self.learner.params)
        rows = self.peers.concatenate(ended, self._envs.num)
        for episode in map(Episode._make, rows):
            self.score = episode.score
            if self.peers.leads:
                self._logger.episode(self.frames, *episode)

    def agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether any process is told to stop, and whether it is time to save.

        Several processes stop and save together, by the leader's clock.
        """
        return self._saver.agree(stop, save)

    def learn(self, stop: StopSignal | None = None) -> None:
        """The updates that the policy steps so far bought, often none.

        Returns early when a signal comes, unless other processes know nothing
        of it; what is left is done next time, also by a run that continues
        this one.

        Raises:
          Diverged: too many updates in a row were not finite.
        """
        stop = stop if self.peers.count == 1 else None
        windows = self._replay.windows * self.peers.count
        self._budget.spend(self.policy_steps, windows)
        while self._budget.owed and not (stop and stop.received):
            self.beat()
            if self.learner.ready(timeout=0.2):
                self.learner.update()
                self._budget.owed -= 1

    def beat(self) -> None:
        """Tells status.json now and then that the run goes on."""
        self._status.beat(**self._standing())

    def tell(self, state: str, error: str | None = None) -> None:
        """Tells status.json how the run is: see status.py for the words."""
        self._status.write(state, error, **self._standing())

    def _standing(self) -> dict[str, Any]:
        return {
            "policy_steps": self.policy_steps,
            "frames": self.frames,
            "updates": self.updates,
            "score": self.score,
        }

    def dream(self) -> None:
        """Films what the model predicts, if it is time; rarely takes any."""
        dreamer = self._dreamer()
        if self.peers.leads:
            self._dreams.turn(*dreamer)

    def _dreamer(self) -> tuple[Params, int, int]:
        """Who dreams: parameters, updates and frames of now.

        Divided parameters are united, which all processes do together.
        """
        return self.learner.params, self.updates, self.frames

    def wait(self) -> None:
        """Waits until the device has made every update asked for."""
        jax.block_until_ready(self.learner.state)

    def log(self) -> None:
        """Writes one row: means since the last row, counters and speeds.

        Writes nothing if there has been no step and no update since.
        """
        then, steps, updates, waited = self._logged
        if (steps, updates) == self._progress():
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
        """Begins to write a checkpoint, unless nothing was done since."""
        with self._status.beating(**self._standing()):
            self._save()

    def _save(self) -> None:
        """A row of metrics goes before it.

        So no mean begins before a checkpoint and ends after it.
        """
        self.log()
        self._saver.save(self._progress(), self._parts)

    def _parts(self) -> Parts:
        """What a checkpoint is made of; all processes ask together."""
        arrays = {
            "learner": self.learner.arrays(),  # before the replay is saved
            "driver": self._driver.arrays(),
            "envs": self._envs.state(),
        }
        counters = {
            "policy_steps": self.policy_steps,
            "score": self.score,
            **self._budget.state(),
        }
        state = self.learner.whole_state()
        return self.policy_steps, state, self._replay, arrays, counters

    def look_after_disk(self) -> None:
        """Notes whether the logdir can be written, and tries again if not.

        Raises:
          WriteError: it could not for `run.disk_patience` seconds.
        """
        line = self._saver.look()
        self._news += [line] if line else []

    def finish(self, tell: Callable[[str], None]) -> None:
        """Saves for the last time and stays until all is on disk.

        Args:
          tell: prints a line for a person.

        Raises:
          WriteError: the logdir cannot be written.
        """
        with self._status.beating(**self._standing()):
            self._save()
            dreamer = self._dreamer()
            if self.finished and self.peers.leads:
                self._dreams.last(*dreamer)
            while True:
                self._saver.wait()
                self.look_after_disk()
                for line in self.news():
                    tell(line)
                failing, again = self._saver.standing()
                if not failing:
                    return
                if again:
                    self._save()
                else:
                    time.sleep(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Waits for what is being written, saves nothing new, closes all."""
        self._opened.__exit__(*error)
