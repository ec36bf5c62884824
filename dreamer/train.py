"""Trains an agent: `python -m dreamer.train --configs atari100k`.

`main` reads the command line, `train` builds the run or refuses it, `loop`
is the run itself: act, learn as often as the ratio says, log, save.  Given
the same logdir again, a run goes on from its last checkpoint.  Paper:
"Mastering diverse control tasks through world models" (arXiv 2301.04104v2).
Next: run/state.py for the parts, then run/driver.py and run/learner.py.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

from dreamer.command import say
from dreamer.config import Config
from dreamer.envs.vector import EnvError
from dreamer.options import ConfigError, one_line
from dreamer.pages import page
from dreamer.run import threads
from dreamer.run.faults import brief, explain
from dreamer.run.nonfinite import Diverged
from dreamer.run.patience import WriteError
from dreamer.run.plan import Estimate
from dreamer.run.progress import Progress
from dreamer.run.state import Run
from dreamer.run.when import StopSignal, Timer
from dreamer.settings import load_or_exit
from dreamer.train_ratio import schedule
from dreamer.trouble import PassingError

# Exit codes, beside 0 for a run that is done.
# It ended, or may start another time: a line says why, or a traceback if it
# is a bug.
FAILED = 1
REFUSED = 2  # something asked for cannot work; nothing was created
INTERRUPTED = 75  # told to stop and saved; given its logdir again, it goes on


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    config = load_or_exit(sys.argv[1:] if argv is None else argv)
    try:
        return train(config)
    except Exception as error:
        reason = reason_for(error, config)
        if reason is None:
            raise
    print(f"dreamer.train: {reason}", file=sys.stderr)
    return FAILED


def reason_for(error: Exception, config: Config) -> str | None:
    """What to tell a person of an error; None if it is a bug."""
    if isinstance(error, EnvError | Diverged | WriteError):
        return str(error)  # of an environment, with its own traceback
    return explain(error, config)


def program() -> NoReturn:
    """The command: as `main`, ending the process with the exit code."""
    threads.run_program(main)


def train(config: Config) -> int:
    """Trains one agent, from its first step or its last checkpoint.

    Returns:
      An exit code: 0, `FAILED`, `REFUSED` or `INTERRUPTED`.

    Raises:
      EnvError: environments failed too often.
      Diverged: too many updates in a row were not finite.
      WriteError: the logdir could not be written for too long.
    """
    with StopSignal(hangup=True) as stop:
        try:
            run = Run(config)
        except ConfigError as error:
            say("dreamer.train", error)
            passing = isinstance(error, PassingError)
            return FAILED if passing else REFUSED
        with run:
            try:
                loop(run, stop)
            except Exception as error:
                tell_failure(run, error)
                raise
            finished, updates = run.finished, run.updates
            run.tell("done" if finished else "interrupted")
            if run.peers.leads:
                write_page(run)
    if not finished:
        print(f"Interrupted; goes on with --logdir {run.logdir}")
        return INTERRUPTED
    print(f"Done: {updates:,} updates. Everything is in {run.logdir}")
    return 0


def tell_failure(run: Run, error: Exception) -> None:
    """Leaves word of an error in the logdir, as far as that can be written."""
    bug = f"{type(error).__name__}: {error}"
    run.tell("failed", brief(reason_for(error, run.config) or bug))
    if run.peers.leads:
        write_page(run, failed=True)


def write_page(run: Run, failed: bool = False) -> None:
    """Writes the report page; a run without one is no worse for it.

    Of one that failed, the reason is news enough.
    """
    try:
        print(f"Report: {page.write(run.logdir)}")
    except Exception as error:
        if not failed:
            print(one_line(f"No report page: {error}"), file=sys.stderr)


def loop(run: Run, stop: StopSignal) -> None:
    """Acts, learns, logs and saves until all steps are done or a signal."""
    config = run.config
    steps, updates = config.run.steps, schedule(config).total_updates
    log, save = Timer(config.run.log_every), Timer(config.run.save_every)
    estimate = Estimate(updates, done=run.updates)
    quiet = not run.peers.leads
    every = config.run.log_every
    with Progress(steps, updates, every, quiet=quiet) as progress:
        progress.print(run.describe())
        run.learn(stop)  # what an interrupted run still owes
        while not run.finished:
            stopping, saving = run.agree(stop.received, save.due())
            if stopping:
                break
            run.act()
            run.learn(stop)
            run.dream()
            run.beat()
            progress.update(
                run.policy_steps,
                run.frames,
                run.updates,
                run.realised_ratio,
                run.score,
            )
            if (line := estimate.line(run.updates)) and not quiet:
                progress.print(line)
                progress.restart()  # compiling was not its usual speed
            if log.due():
                run.log()
            if saving:
                run.save()
            run.look_after_disk()
            for line in run.news():
                progress.print(line)
        run.finish(progress.print)


if __name__ == "__main__":
    program()
