"""kill -9 at any instant leaves a complete checkpoint."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dreamer.replay import disk
from dreamer.run.checkpoint import Checkpoints
from tests.run import tiny
from tests.run.saved import (
    assert_nothing_left_over,
    names,
    save,
)

# A fork is quick, where importing everything anew would take seconds. It is
# safe as long as JAX has not been used, and so has no threads.
LOOP = """
import os, signal, sys
from pathlib import Path
from dreamer.replay import disk
from tests.run import test_kill
disk.CHUNK = 8
assert len(os.listdir("/proc/self/task")) <= os.cpu_count()
for _ in sys.stdin:
    child = os.fork()
    if not child:
        signal.alarm(60)  # should the test end before it
        test_kill.save_for_ever(Path(sys.argv[1]))
    test_kill.tell(child)
    test_kill.tell(os.waitpid(child, 0)[1])
"""


def save_for_ever(logdir):
    """Goes on where a killed process stood, as a run does."""
    checkpoints, replay = Checkpoints(logdir), tiny.make_replay()
    step = 0
    if checkpoints.latest is not None:
        step = consistent(checkpoints, replay)
    tell("saves")
    while True:
        step += 1
        for one in tiny.steps(5, 5 * step):
            replay.add(one)
        arrays = {"envs": {"x": np.full(50_000, step)}}
        counters = {"policy_steps": step}
        checkpoints.save(step, numpy_state(step), replay, arrays, counters)


def tell(word):
    """One write, which nothing comes between."""
    os.write(1, f"{word}\n".encode())


def numpy_state(value):
    return tiny.State(
        weight=np.full(3, value, np.float32), updates=np.int32(value)
    )


def consistent(checkpoints, replay):
    """Restores, and checks that all parts are of the same step."""
    new_state, arrays, counters = checkpoints.restore(numpy_state(0), replay)
    step = counters["policy_steps"]
    assert checkpoints.reports == []
    assert checkpoints.latest == step
    assert int(new_state.updates) == step
    assert (arrays["envs"]["x"] == step).all()
    twin = tiny.make_replay()
    for one in tiny.steps(5 * step, 5):
        twin.add(one)
    assert replay._queue == twin._queue
    assert replay._time == 5 * step
    if replay.windows:
        tiny.assert_equal(tiny.contents(replay), tiny.contents(twin))
    return step


def test_killed_at_any_instant_the_last_complete_one_is_restored(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(disk, "CHUNK", 8)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-c", LOOP, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    rng, steps = random.Random(0), [0]
    with subprocess.Popen(
        command, **pipes, text=True, env=environment, cwd=root
    ) as process:
        for _ in range(25):
            print(file=process.stdin, flush=True)
            lines = {process.stdout.readline().strip() for _ in range(2)}
            [child] = lines - {"saves"}  # whichever came first
            time.sleep(rng.uniform(0, 0.3))
            os.kill(int(child), signal.SIGKILL)
            status = int(process.stdout.readline())
            assert os.WTERMSIG(status) == signal.SIGKILL
            with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
                if checkpoints.latest is not None:
                    replay = tiny.make_replay()
                    steps.append(consistent(checkpoints, replay))
            assert steps == sorted(steps)
            if (tmp_path / "ckpt").exists():
                assert len(list((tmp_path / "ckpt").iterdir())) <= 5
        process.stdin.close()
    assert len(set(steps)) > 10
    save(tmp_path, steps[-1] + 1)
    assert_nothing_left_over(tmp_path)
    assert len(names(tmp_path)) == 2
