"""A run that is tormented ends with the bits of one that is left in peace.

A seeded tormentor ends real processes that train on Pong, at random instants
and in every way it knows: killed, terminated, interrupted, with a disk that
takes no more, with damage to the newest checkpoint.  `scripts/test -m long`
takes the long form.
"""

import contextlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dreamer.replay import Positions
from dreamer.run.state import Run
from dreamer.settings import load

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
NEVER = resource.RLIM_INFINITY
WAYS = ("kill", "terminate", "interrupt", "full disk", "damage")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Every start but the first finds its programs compiled."""
    folder = tmp_path_factory.mktemp("cache")
    return os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder))


def command(logdir, steps, envs, replay=400, videos=0.0):
    argv = ["--configs", "atari100k", "debug", "--logdir", logdir]
    # Episodes of 40 policy steps, and a replay that wraps often.
    argv += ["--env.atari100k.length", "160"]
    argv += ["--replay.size", replay]
    argv += ["--run.steps", steps, "--run.envs", envs]
    argv += ["--run.save_every", "0.3", "--run.log_every", "0.2"]
    argv += ["--run.report_every", videos]
    return [sys.executable, "-m", "dreamer.train", *map(str, argv)]


def start(argv, cache):
    return subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def saved(logdir):
    names = [x.name for x in logdir.glob("ckpt/*") if x.name.isdigit()]
    return max(map(int, names), default=0)


def wait_until_saved(process, logdir, steps):
    """Waits for a checkpoint of so many steps; whether the run still runs."""
    deadline = time.monotonic() + 300
    while saved(logdir) < steps and process.poll() is None:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)
    return process.poll() is None


def torment(process, way, logdir, rng):
    """Ends the process, or lets it suffer first; its exit code."""
    if way == "full disk":
        # As a full disk does, this fails every write, at any of its bytes.
        limit = int(rng.integers(0, 100_000))
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, NEVER))
        time.sleep(rng.uniform(0, 1))
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (NEVER, NEVER))
        time.sleep(rng.uniform(0, 1))
    signals = {"terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
    number = signals.get(way, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    _, err = process.communicate(timeout=120)
    if way == "damage":
        newest = logdir / "ckpt" / str(saved(logdir))
        files = sorted(x for x in newest.iterdir() if x.is_file())
        damage(files[rng.integers(len(files))], rng)
    return process.returncode, err


def damage(path, rng):
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content)))
    if rng.random() < 0.5:
        content[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    else:
        path.write_bytes(content[:at])


def outcome(logdir, argv):
    """All that a run leaves behind, but for times and names of files."""
    newest = logdir / "ckpt" / str(saved(logdir))
    arrays = {x.name: x.read_bytes() for x in newest.glob("*.arrays")}
    rows = [json.loads(x) for x in (logdir / "metrics.jsonl").open()]
    steps, updates = (
        [x[name] for x in rows if name in x]
        for name in ("policy_steps", "updates")
    )
    assert steps == sorted(set(steps))
    assert updates == sorted(updates)
    episodes = [x for x in rows if "episode/score" in x]
    scores = (logdir / "scores.jsonl").read_text()
    return arrays, episodes, scores, updates[-1], replayed(argv)


def replayed(argv):
    """Every window of the replay, fields and latents, as bytes."""
    with Run(load(argv)) as run:
        replay = run._replay
        starts = replay._oldest + np.arange(replay.windows // replay.envs)
        env = np.repeat(np.arange(replay.envs), len(starts))
        batch = replay.gather(Positions(env, np.tile(starts, replay.envs)))
    return {name: x.tobytes() for name, x in batch.items()}


def soak(tmp_path, cache, seed, torments, steps, envs):
    left_alone, tormented = tmp_path / "peace", tmp_path / "torment"
    process = start(command(left_alone, steps, envs), cache)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err

    rng = np.random.default_rng(seed)
    argv = command(tormented, steps, envs, videos=0.3)
    ways = itertools.islice(itertools.cycle(rng.permutation(WAYS)), torments)
    for count, way in enumerate(ways):
        process = start(argv, cache)
        # All the way along the run, a little more each time.
        target = saved(tormented) + rng.integers(1, steps // (torments + 1))
        begun = rng.random() < 0.1 or wait_until_saved(
            process, tormented, target
        )
        time.sleep(rng.uniform(0, 0.5))
        if way == "damage" and not begun:
            way = "kill"
        code, err = torment(process, way, tormented, rng)
        # 0 if the run was done before it could be stopped.
        assert code in (-signal.SIGKILL, -signal.SIGTERM, 75, 0), (way, err)
        assert "Traceback" not in err, (count, way, err)
    process = start(argv, cache)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err

    ours = outcome(tormented, argv[3:])
    theirs = outcome(left_alone, command(left_alone, steps, envs)[3:])
    for one, other in zip(ours, theirs, strict=True):
        assert one == other
    ends = (".tmp", ".partial")
    leftovers = [x for x in tormented.rglob("*") if x.name.endswith(ends)]
    assert leftovers == []
    # What nobody asked for in peace has changed nothing.
    assert list(tormented.glob("videos/*.mp4"))
    assert not (left_alone / "videos").exists()


def test_tormented(tmp_path, cache):
    soak(tmp_path, cache, seed=0, torments=5, steps=1500, envs=1)


@pytest.mark.long
@pytest.mark.parametrize("envs", [1, 3])
def test_tormented_for_long(tmp_path, cache, envs):
    soak(tmp_path, cache, seed=envs, torments=30, steps=5_000, envs=envs)


def resident():
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.long
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(),
    reason="this system does not tell how much memory a process takes",
)
def test_memory_stays_flat(tmp_path):
    """While the replay wraps 20 times, after it has wrapped 10 times."""
    argv = command(tmp_path / "run", 10**6, envs=1, replay=100)[3:]
    with Run(load(argv)) as run:
        sizes = []
        for wrapped in range(30):
            while run.policy_steps < 100 * (wrapped + 1):
                run.act()
                run.learn()
            run.save()
            run.news()
            sizes.append(resident())
    # A single image, leaked at every step, would be 25 MB.
    assert sizes[-1] - sizes[9] < 12e6
