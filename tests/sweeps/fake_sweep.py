"""A sweep of fake runs as a process: `python -m tests.sweeps.fake_sweep`.

Arguments: the folder, runs at a time, and NAME=BEHAVIOUR for every run.
"""

import sys
from pathlib import Path

from dreamer.run.when import StopSignal
from dreamer.sweeps import record
from dreamer.sweeps.local import Local
from dreamer.sweeps.slots import make_slots
from tests.sweeps import fake_train


def main(folder, jobs, *runs):
    folder = Path(folder)
    runs = [fake_train.make(folder, *word.split("=")) for word in runs]
    with record.hold(folder), StopSignal() as stop:
        found = record.read(folder)
        found.add(runs)
        found.write()
        slots = make_slots([], 1, int(jobs))
        local = Local(runs, found, slots, 1, lambda x: print(x, flush=True))
        return local.work(stop, lambda: None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
