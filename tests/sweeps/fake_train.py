"""In place of `dreamer.train`: does as its first argument says, at once.

It locks its logdir and writes status.json as a run does, and a line in
`starts` for each start. `python -m tests.sweeps.fake_train` is one run, the
functions make such runs for a sweep.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dreamer.run import lock
from dreamer.settings import load
from dreamer.status import Status
from dreamer.sweeps.grid import Run

STEPS = 10
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Fake(Run):
    """A run that is not what its settings say."""

    behaviour: str = "done"

    @property
    def command(self):
        module = "tests.sweeps.fake_train"
        return [module, self.behaviour, self.config.logdir]


def make(folder, name, behaviour="done"):
    logdir = folder / name
    arguments = ("--configs", "debug", "--run.steps", str(STEPS))
    config = load([*arguments, "--logdir", str(logdir)])
    return Fake(name, arguments, config, behaviour)


def starts(folder, name):
    """How often a run was started, and where."""
    path = folder / name / "starts"
    return path.read_text().splitlines() if path.exists() else []


def main(behaviour, logdir):
    logdir = Path(logdir)
    if behaviour == "refused":
        print("fake: refused: it cannot work")
        return 2
    with lock.acquire(logdir):
        with (logdir / "starts").open("a") as file:
            cores = sorted(os.sched_getaffinity(0))
            gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
            print(os.getpid(), gpu, *cores, file=file)
        before = len(starts(logdir.parent, logdir.name)) - 1
        status = Status(logdir, STEPS, 0)
        status.write("running", policy_steps=0)
        return act(behaviour, logdir, status, before)


def act(behaviour, logdir, status, before):
    if behaviour == "fails" or (behaviour == "fails once" and not before):
        print("a traceback")
        status.write("failed", "out of luck")
        return 1
    if behaviour == "dies" or (behaviour == "dies once" and not before):
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "interrupted" and before < 2:
        status.write("interrupted")
        return 75
    if behaviour == "waits":
        told = []
        signal.signal(signal.SIGTERM, lambda *_: told.append(1))
        (logdir / "waits").touch()
        while not told and not (logdir / "go").exists():
            time.sleep(0.01)
        if told:
            status.write("interrupted")
            return 75
    status.write("done", policy_steps=STEPS)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
