"""Builds an environment of every Gymnasium task, before a sweep starts.

Atari games are known by name; of other tasks only their own code can tell
whether they exist and suit the agent. It runs in a process of its own, so
that it can neither stay in the sweep nor end it. Next: ../envs/make.py.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from dreamer.envs.make import make_env
from dreamer.options import ConfigError, cut, one_line
from dreamer.settings import load
from dreamer.sweeps.grid import Run


def check(runs: Sequence[Run], launcher: str) -> None:
    """Tries every task of Gymnasium once, with the settings of its runs.

    Args:
      runs: runs of a sweep.
      launcher: name of what will run them, which only the message tells.

    Raises:
      ConfigError: one cannot be built on this machine.
    """
    found = {
        repr((x.config.task, x.config.env)): x
        for x in runs
        if x.config.suite == "gym"
    }
    if not found:
        return
    tried = list(found.values())
    reason = _try(tried, max(x.config.run.env_timeout for x in tried))
    if reason and launcher != "local":
        reason += f" (tried on this machine before --launcher {launcher})"
    if reason:
        raise ConfigError(reason)


def _try(runs: Sequence[Run], seconds: float) -> str:
    """Why one of them cannot be built, or nothing."""
    tasks = cut(", ".join(dict.fromkeys(x.config.task for x in runs)))
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(
                [[*x.arguments, "--logdir", x.config.logdir] for x in runs]
            ),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds * len(runs),
        )
    except subprocess.TimeoutExpired as error:
        return f"--task={tasks}: no environment in {error.timeout:g} s"
    if done.returncode and not done.stdout:
        said = done.stderr.split("\n")
        last = next((x for x in reversed(said) if x.strip()), "nothing")
        return (
            f"--task={tasks}: building an environment ends its process with"
            f" exit code {done.returncode}; the last that it said: {last}"
        )
    return done.stdout


def main() -> int:
    """The other process: says why the first one fails on standard output."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what environments print is no answer
    for arguments in json.load(sys.stdin):
        config = load(arguments)
        try:
            make_env(config).close()
            continue
        except ConfigError as error:
            reason = str(error)
        except (Exception, SystemExit) as error:
            name = type(error).__name__
            reason = f"task is {config.task}: {name}: {error}"
        line = one_line(" ".join(reason.split()))
        os.write(answer, line.encode("utf-8", "replace"))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
