"""Trains an agent: `python -m dreamer.train --configs atari100k`.

Reads top to bottom.  `main` checks the settings, `train` builds environments,
replay and agent, and `loop` is the run itself: act, store, learn as often as
the ratio says, log, save.  The same command on the same logdir goes on where
the last checkpoint left off.  Paper: "Mastering diverse control tasks through
world models" (arXiv 2301.04104v2).  Next: run/driver.py and run/learner.py.
"""

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import jax

from dreamer.agent.agent import Agent, TrainState
from dreamer.config import (
    Config,
    ConfigError,
    check_resume,
    load,
    load_or_exit,
    save,
)
from dreamer.envs.vector import EnvError, Envs, make_envs
from dreamer.ratio import Ratio
from dreamer.replay import Replay, bytes_per_step, fits_in_ram
from dreamer.run.checkpoint import Checkpoints
from dreamer.run.device import describe_device, select_device
from dreamer.run.driver import Driver, Episode, replay_fields
from dreamer.run.learner import Learner
from dreamer.run.logger import Logger
from dreamer.run.plan import describe
from dreamer.run.progress import Progress
from dreamer.train_ratio import schedule, updates_owed

INTERRUPTED = 75  # exit code of a run that was told to stop and can go on


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 0 done, 1 failed, 2 refused, 75 interrupted."""
    config = load_or_exit(sys.argv[1:] if argv is None else argv)
    try:
        return train(config)
    except (ConfigError, ValueError) as error:
        print(f"dreamer.train: {error}", file=sys.stderr)
        return 2
    except EnvError as error:
        print(f"dreamer.train: {error}", file=sys.stderr)
        return 1


def train(config: Config) -> int:
    """Builds everything, refuses what cannot work, then runs the loop."""
    dtype = select_device(config.jax)
    logdir = Path(config.logdir)
    check_logdir(config, logdir)
    envs = make_envs(config)
    try:
        agent = Agent(
            envs.obs_spaces,
            envs.action_space,
            config.agent,
            dtype=dtype,
            context=config.replay_context,
        )
        replay = make_replay(config, envs, agent)
        logdir.mkdir(parents=True, exist_ok=True)
        save(config, logdir / "config.yaml")
        return loop(config, logdir, envs, agent, replay)
    finally:
        envs.close()


def check_logdir(config: Config, logdir: Path) -> None:
    """A logdir that holds another run is refused, nothing is touched.

    Raises:
      ConfigError: names the first setting that differs.
    """
    if (logdir / "config.yaml").exists():
        old = load(["--configs", str(logdir / "config.yaml")])
        check_resume(old, config)


def make_replay(config: Config, envs: Envs, agent: Agent) -> Replay:
    """Never larger than the run's own steps; refused if RAM is too small.

    Raises:
      ValueError: names the RAM that is needed and the RAM there is.
    """
    fields, latents = replay_fields(envs), agent.latents
    window = config.replay_context + config.batch_length
    capacity = min(config.replay.size, config.run.steps)
    capacity = max(-(-capacity // envs.num), window) * envs.num
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


@dataclass
class Timer:
    """True once every `seconds`; the first time after that long."""

    seconds: float
    last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether it is time again."""
        now = time.monotonic()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


class StopSignal:
    """Notes SIGTERM and the first SIGINT; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Run:
    """The parts of a run, and what of them a checkpoint holds."""

    def __init__(
        self,
        config: Config,
        logdir: Path,
        envs: Envs,
        agent: Agent,
        replay: Replay,
    ) -> None:
        act_key, learn_key = jax.random.split(jax.random.key(config.seed))
        self.config = config
        self.replay = replay
        self.ratio = Ratio(
            updates_owed(config.run.train_ratio, config.batch_steps)
        )
        self.checkpoints = Checkpoints(logdir)
        self.logger = Logger(logdir, config, config.logger.outputs)
        state: TrainState = agent.init(config.seed)
        pending, counters = None, {"policy_steps": 0}
        if self.checkpoints.latest is not None:
            state, pending, counters = self.checkpoints.restore(state, replay)
            self.ratio.restore(counters["ratio"])
        steps = counters["policy_steps"]
        self.driver = Driver(envs, agent, replay, act_key, steps)
        self.learner = Learner(
            agent, state, replay, config.batch_size, learn_key
        )
        if pending:
            self.learner.restore_pending(pending)
        self.logger.truncate_after(self.frames)
        self.score: float | None = counters.get("score")
        self.saved_at: int | None = steps if steps else None
        self.logged = (time.monotonic(), steps, self.learner.updates)

    @property
    def policy_steps(self) -> int:
        """Actions taken so far, over all environments."""
        return self.driver.policy_steps

    @property
    def frames(self) -> int:
        """Emulated frames so far."""
        return self.policy_steps * self.config.action_repeat

    @property
    def realised_ratio(self) -> float:
        """Time steps trained on per policy step since training began."""
        return replay_ratio(self.ratio, self.policy_steps, self.config)

    def save(self) -> None:
        """Writes a checkpoint, unless nothing happened since the last."""
        if self.saved_at == self.policy_steps:
            return
        self.saved_at = self.policy_steps
        pending = self.learner.pending()  # before the replay is saved
        counters = {
            "policy_steps": self.policy_steps,
            "updates": self.learner.updates,
            "ratio": self.ratio.state(),
            "score": self.score,
        }
        self.checkpoints.save(
            self.policy_steps,
            self.learner.state,
            self.replay,
            pending,
            counters,
        )
        self.logger.flush()

    def log(self) -> None:
        """Writes the means since the last line, counters and speeds."""
        metrics = {f"train/{k}": v for k, v in self.learner.metrics().items()}
        then, steps, updates = self.logged
        self.logged = (
            time.monotonic(),
            self.policy_steps,
            self.learner.updates,
        )
        seconds = self.logged[0] - then
        fps = (self.policy_steps - steps) / seconds
        trained = (self.learner.updates - updates) / seconds
        metrics |= {
            "policy_steps": self.policy_steps,
            "frames": self.frames,
            "updates": self.learner.updates,
            "replay/replay_ratio": self.realised_ratio,
            "replay/items": len(self.replay),
            "fps/policy": fps,
            "fps/train": trained * self.config.batch_steps,
            "fps/updates": trained,
        }
        self.logger.scalars(self.frames, metrics)

    def finished(self, episode: Episode) -> None:
        """Logs an episode that has ended."""
        self.score = episode.score
        self.logger.episode(self.frames, episode.score, episode.length)

    def close(self) -> None:
        """Waits for whatever is still being written."""
        self.learner.close()
        self.checkpoints.close()
        self.logger.close()


def replay_ratio(ratio: Ratio, policy_steps: int, config: Config) -> float:
    """Time steps trained on per policy step since the ratio's anchor."""
    state = ratio.state()
    if state["anchor"] is None or policy_steps <= state["anchor"]:
        return 0.0
    steps = policy_steps - state["anchor"]
    return state["given"] * config.batch_steps / steps


def loop(
    config: Config, logdir: Path, envs: Envs, agent: Agent, replay: Replay
) -> int:
    """Acts, stores, learns, logs and saves until the steps are done."""
    stop = StopSignal()
    run = Run(config, logdir, envs, agent, replay)
    learner, driver = run.learner, run.driver
    total = config.run.steps
    expected = schedule(config).total_updates
    log, checkpoint = Timer(config.run.log_every), Timer(config.run.save_every)
    with Progress(total, expected, config.run.log_every) as progress:
        progress.print(describe_device(agent.dtype))
        progress.print(describe(config, agent, replay, learner.state.params))
        if run.policy_steps:
            progress.print(f"Continues {logdir} at {run.policy_steps:,}")
        while run.policy_steps < total and not stop.received:
            for episode in driver.step(learner.state.params):
                run.finished(episode)
            if replay.windows >= config.batch_steps:
                first = run.policy_steps - envs.num + 1
                for step in range(first, run.policy_steps + 1):
                    for _ in range(run.ratio(step)):
                        learner.update()
            progress.update(
                run.policy_steps,
                run.frames,
                learner.updates,
                run.realised_ratio,
                run.score,
            )
            if log.due():
                run.log()
            if checkpoint.due():
                run.save()
        run.log()
        run.save()
        run.close()
    if stop.received and run.policy_steps < total:
        print(f"Interrupted; the same command continues {logdir}")
        return INTERRUPTED
    print(f"Done: {learner.updates:,} updates. Everything is in {logdir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
