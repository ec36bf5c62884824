"""Worker processes: how they begin, what they ignore, how they end."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.context import ForkServerProcess

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.envs import workers
from dreamer.envs.vector import EnvError, Envs
from tests.envs.scripted import scripted, wait_until_gone


def environment():
    """For programs that are run as a person would run them."""
    return {**os.environ, "PYTHONPATH": os.getcwd()}


def run_program(path, text):
    """Runs it to its end, in a process of its own."""
    path.write_text(text)
    return subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        check=False,
    )


@contextlib.contextmanager
def running(path, text):
    """Runs it as the leader of a group of all processes that it starts."""
    path.write_text(text)
    program = subprocess.Popen(
        [sys.executable, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    with program:
        yield program
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)


def pids_of(program):
    return [int(pid) for pid in program.stdout.readline().split()]


def test_close_ends_the_processes(build):
    envs = build([scripted()] * 3, 0)
    pids = set(envs.reset()["process"][:, 0].tolist())
    assert len(pids) == 3
    assert os.getpid() not in pids
    envs.close()
    envs.close()
    wait_until_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_outlive_signals_to_all_processes(build, number):
    envs = build([scripted()] * 2, 0)
    for pid in envs.reset()["process"][:, 0]:
        os.kill(pid, number)
    time.sleep(0.1)
    assert (envs.step(np.zeros(2, int))["count"] == 1).all()


def test_workers_do_not_load_the_program_nor_jax(tmp_path):
    # A program like the one that trains: JAX at the top, no main guard.
    result = run_program(
        tmp_path / "program.py",
        """
import jax
import gymnasium
from dreamer.envs.vector import Envs

def make():
    class Probe(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(
            loaded=gymnasium.spaces.Discrete(2)
        )
        action_space = gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None):
            import sys
            return {"loaded": int("jax" in sys.modules)}, {}
    return Probe()

envs = Envs([make] * 2, 0)
print("loaded", envs.reset()["loaded"].tolist())
envs.close()
""",
    )
    assert result.stdout == "loaded [0, 0]\n", result.stderr
    assert result.stderr == ""


PROGRAM = """
import multiprocessing, os, signal, time
import numpy as np
from dreamer.envs.vector import Envs
from tests.envs.scripted import scripted

def sleep():
    import time
    time.sleep({sleep})

envs = Envs([scripted(fail=5, how=sleep, length=99)] * 3, 0, timeout={timeout})
pids = envs.reset()["process"][:, 0].tolist()
print(*pids, flush=True)
"""


def test_workers_end_with_a_main_process_that_is_killed(tmp_path):
    text = (
        PROGRAM.format(timeout=600, sleep=600)
        + "envs.step(np.array([0, 5, 0]))"
    )
    with running(tmp_path / "program.py", text) as program:
        pids = pids_of(program)
        time.sleep(0.3)
        program.kill()
        wait_until_gone(pids)


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "del envs"])
def test_a_program_can_end_without_closing(tmp_path, end):
    text = PROGRAM.format(timeout=600, sleep=600)
    text += "os.kill(pids[1], signal.SIGSTOP)\n" + end
    result = run_program(tmp_path / "program.py", text)
    assert result.stderr == ""
    wait_until_gone([int(pid) for pid in result.stdout.split()])


def helped(method):
    """A function that builds an environment with processes of its own."""

    class Helped(gymnasium.Env):
        observation_space = spaces.Dict(
            helper=spaces.MultiDiscrete([2**31]),
            process=spaces.MultiDiscrete([2**31]),
        )
        action_space = spaces.Discrete(9)

        def reset(self, *, seed=None, options=None):
            import multiprocessing
            import time

            context = multiprocessing.get_context(method)
            self.helper = context.Process(target=time.sleep, args=(600,))
            self.helper.start()
            with context.Pool(2) as pool:
                assert pool.map(abs, [-1, -2]) == [1, 2]
            return self.look(), {}

        def look(self):
            import os

            pids = [self.helper.pid], [os.getpid()]
            return {"helper": np.array(pids[0]), "process": np.array(pids[1])}

        def step(self, action):
            import os
            import time

            if action == 5:
                time.sleep(600)
            if action == 6:
                os._exit(3)
            return self.look(), 0.0, False, False, {}

    return Helped


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_environments_may_start_processes(build, method):
    envs = build([helped(method)] * 2, 0, timeout=60)
    step = envs.reset()
    pids = [*step["helper"][:, 0], *step["process"][:, 0]]
    assert len(set(pids)) == 4
    assert (envs.step(np.zeros(2, int))["helper"] == step["helper"]).all()
    assert envs.reports == []
    envs.close()
    wait_until_gone(pids)


def test_helpers_of_one_that_hangs_end_with_it(build):
    envs = build([helped("fork")] * 2, 0, timeout=5)
    step = envs.reset()
    assert envs.step(np.array([0, 5]))["is_first"].tolist() == [False, True]
    wait_until_gone([step["helper"][1, 0], step["process"][1, 0]])
    assert os.path.exists(f"/proc/{step['helper'][0, 0]}")


def test_a_death_is_noticed_while_a_helper_lives_and_ends_it(build):
    envs = build([helped("fork")] * 2, 0, timeout=60)
    first = envs.reset()["helper"][:, 0]
    start = time.monotonic()
    assert envs.step(np.array([0, 6]))["is_first"].tolist() == [False, True]
    assert time.monotonic() - start < 40  # not the timeout
    assert "(exit code 3)" in envs.reports[0]
    wait_until_gone([first[1]])
    assert os.path.exists(f"/proc/{first[0]}")


HELPED = """
import signal
import numpy as np
from dreamer.envs.vector import Envs
from tests.envs.test_workers import helped

# A shell that starts tests in the background has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
envs = Envs([helped("fork")] * 3, 0, timeout=60)
step = envs.reset()
print(*step["helper"][:, 0], *step["process"][:, 0], flush=True)
envs.step(np.array([0, 5, 0]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_helpers_end_with_the_main_process(tmp_path, number):
    with running(tmp_path / "program.py", HELPED) as program:
        pids = pids_of(program)
        assert len(set(pids)) == 6
        time.sleep(0.3)
        os.killpg(program.pid, number)
        program.wait(30)
        wait_until_gone(pids)


def test_a_worker_that_does_not_start_leaves_nothing_open(monkeypatch):
    pairs = []

    real = socket.socketpair

    def pair():
        pairs.append(real())
        return pairs[-1]

    def refuse(self):
        raise OSError("no more processes")

    monkeypatch.setattr(workers.socket, "socketpair", pair)
    monkeypatch.setattr(ForkServerProcess, "start", refuse)
    with pytest.raises(EnvError, match="not be started: no more processes"):
        Envs([scripted()] * 2, 0)
    assert [x.fileno() for x in pairs[0]] == [-1, -1]


def test_close_waits_for_nobody(build):
    envs = build([scripted()] * 4, 0)
    pids = envs.reset()["process"][:, 0]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    envs.close()
    assert time.monotonic() - start < 10
    wait_until_gone(pids)


def test_forgotten_workers_end():
    envs = Envs([scripted()] * 2, 0)
    pids = envs.reset()["process"][:, 0]
    del envs
    gc.collect()
    wait_until_gone(pids)


def test_workers_can_be_replaced_and_ended_after_sigterm_to_all(tmp_path):
    text = PROGRAM.format(timeout=600, sleep=600)
    text += """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
os.killpg(0, signal.SIGINT)
time.sleep(0.5)
os.kill(pids[1], signal.SIGKILL)
for _ in range(2):
    print(envs.step(np.zeros(3, int))["is_first"].tolist(), len(envs.reports))
os.kill(pids[2], signal.SIGSTOP)
for process in multiprocessing.active_children():
    assert process.is_alive()
envs.close()
"""
    with running(tmp_path / "program.py", text) as program:
        pids = pids_of(program)
        assert program.stdout.read().splitlines() == [
            "[False, True, False] 1",
            "[False, False, False] 1",
        ]
        assert program.wait() == 0
        wait_until_gone(pids)


def test_time_while_all_are_stopped_does_not_count(tmp_path):
    text = PROGRAM.format(timeout=0.5, sleep=0.05)
    text += """
for _ in range(30):
    envs.step(np.full(3, 5))
print(envs.reports)
"""
    with running(tmp_path / "program.py", text) as program:
        pids_of(program)
        for _ in range(3):
            time.sleep(0.2)
            os.killpg(program.pid, signal.SIGSTOP)
            time.sleep(1.0)
            os.killpg(program.pid, signal.SIGCONT)
        assert program.stdout.read() == "[]\n"


def test_large_observations_and_states(build):
    class Large(gymnasium.Env):
        observation_space = spaces.Dict(
            image=spaces.Box(0, 255, (500, 400, 3), np.uint8),
            one=spaces.Box(-1, 1, (1,), np.float32),
        )
        action_space = spaces.Box(-1, 1, (70000,), np.float32)

        def reset(self, *, seed=None, options=None):
            self.rng = np.random.default_rng(seed)
            return self.look(0.0), {}

        def look(self, one):
            image = self.rng.integers(0, 256, (500, 400, 3), np.uint8)
            return {"image": image, "one": np.array([one], np.float32)}

        def step(self, action):
            return self.look(action.mean()), action.sum(), False, False, {}

        def get_state(self):
            return self.rng.bytes(3_000_000)

        def set_state(self, state):
            self.rng = np.random.default_rng(sum(state))

    envs, alone = build([Large] * 2, 0), build([Large], 0)
    for step in (envs.reset(), envs.step(np.ones((2, 70000)))):
        assert step["image"].shape == (2, 500, 400, 3)
    alone.reset()
    one = alone.step(np.ones((1, 70000)))
    assert (step["one"][:, 0].tolist(), step["reward"][0]) == ([1, 1], 70000)
    for key, value in one.items():
        np.testing.assert_array_equal(value[0], step[key][0])
    blobs = envs.state(), alone.state()
    np.testing.assert_array_equal(blobs[0]["env0"], blobs[1]["env0"])
    envs.restore(blobs[0], step)
    alone.restore(blobs[1], one)
    np.testing.assert_array_equal(
        envs.step(np.zeros((2, 70000)))["image"][0],
        alone.step(np.zeros((1, 70000)))["image"][0],
    )
