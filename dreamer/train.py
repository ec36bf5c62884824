"""Trains an agent: `python -m dreamer.train --configs atari100k`.

`main` reads the command line, `train` builds the run or refuses it, `loop`
is the run itself: act, learn as often as the ratio says, log, save.  Given
the same logdir again, a run goes on from its last checkpoint.  Paper:
"Mastering diverse control tasks through world models" (arXiv 2301.04104v2).
Next: run/state.py for the parts, then run/driver.py and run/learner.py.
"""

import sys
from collections.abc import Sequence

from dreamer.config import Config, load_or_exit
from dreamer.envs.vector import EnvError
from dreamer.run.plan import Estimate
from dreamer.run.progress import Progress
from dreamer.run.state import Run
from dreamer.run.when import StopSignal, Timer
from dreamer.train_ratio import schedule

# Exit codes, beside 0 for a run that is done.
FAILED = 1  # an environment failed; a traceback of anything else gives 1 too
REFUSED = 2  # something asked for cannot work; nothing was created
INTERRUPTED = 75  # told to stop and saved; given its logdir again, it goes on


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    config = load_or_exit(sys.argv[1:] if argv is None else argv)
    try:
        return train(config)
    except EnvError as error:  # its message is the environment's traceback
        print(f"dreamer.train: {error}", file=sys.stderr)
        return FAILED


def train(config: Config) -> int:
    """Trains one agent, from its first step or its last checkpoint.

    Returns:
      An exit code: 0, `REFUSED` or `INTERRUPTED`.

    Raises:
      EnvError: an environment failed.
      OSError: the disk is full.
    """
    try:
        run = Run(config)
    except ValueError as error:
        line = " ".join(str(error).split())
        print(f"dreamer.train: {line}", file=sys.stderr)
        return REFUSED
    with run, StopSignal() as stop:
        loop(run, stop)
        finished, updates = run.finished, run.updates
    if not finished:
        print(f"Interrupted; goes on with --logdir {run.logdir}")
        return INTERRUPTED
    print(f"Done: {updates:,} updates. Everything is in {run.logdir}")
    return 0


def loop(run: Run, stop: StopSignal) -> None:
    """Acts, learns, logs and saves until all steps are done or a signal."""
    config = run.config
    steps, updates = config.run.steps, schedule(config).total_updates
    log, save = Timer(config.run.log_every), Timer(config.run.save_every)
    estimate = Estimate(updates, done=run.updates)
    with Progress(steps, updates, config.run.log_every) as progress:
        progress.print(run.describe())
        while not run.finished and not stop.received:
            run.act()
            run.learn()
            progress.update(
                run.policy_steps,
                run.frames,
                run.updates,
                run.realised_ratio,
                run.score,
            )
            if line := estimate.line(run.updates):
                progress.print(line)
                progress.restart()  # compiling was not its usual speed
            if log.due():
                run.log()
            if save.due():
                run.save()
        run.save()


if __name__ == "__main__":
    sys.exit(main())
