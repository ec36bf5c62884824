"""On a GPU: parity, a run that goes on elsewhere, the same bits, its memory.

Programs are started for all of it: this process stays on the CPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer.run.shelf import saved_steps

ROOT = Path(__file__).resolve().parent.parent
PLATFORM = "cuda"
TASK = ["--task", "atari100k_pong", "--jax.platform", PLATFORM]

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def start(*words, **variables):
    """A program on the GPU, or where `variables` say, that has ended."""
    env = {x: y for x, y in os.environ.items() if x != "JAX_PLATFORMS"}
    env |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **variables}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        check=False,
    )


def train(logdir, *words):
    debug = ["--configs", "atari100k", "debug", "--logdir", logdir]
    ended = start("-m", "dreamer.train", *TASK, *debug, *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def newest_state(logdir):
    """Train state and latents of its batch, as they are in the checkpoint."""
    folder = logdir / "ckpt" / str(max(saved_steps(logdir / "ckpt")))
    names = ("state.arrays", "learner.arrays", "driver.arrays")
    return [(folder / name).read_bytes() for name in names]


def test_parity_holds():
    fixture = ROOT / "tests" / "data" / "tiny.npz"
    ended = start("scripts/parity.py", fixture, JAX_PLATFORMS=PLATFORM)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "parity holds" in ended.stdout


def test_a_run_goes_on_and_plays_on_a_cpu(tmp_path):
    said = train(tmp_path, "--run.steps", "60")
    assert "No accelerator in use" not in said
    first = json.loads((tmp_path / "starts.jsonl").read_text())
    assert first["jax_backend"] == "gpu"
    assert "Continues at policy step 60" in train(tmp_path)
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    last = json.loads(rows[-1])
    assert np.isfinite(last["train/opt/loss"])
    assert last["train/opt/nonfinite"] == 0
    ended = start(
        *["-m", "dreamer.evaluate", "--logdir", tmp_path, "--episodes", "1"],
        *["--envs", "1", "--length", "50"],
        JAX_PLATFORMS="cpu",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_deterministic_runs_have_the_same_bits(tmp_path):
    for name in ("one", "other"):
        train(tmp_path / name, "--jax.deterministic", "true")
    assert newest_state(tmp_path / "one") == newest_state(tmp_path / "other")


def test_too_little_memory_is_said_in_one_line(tmp_path):
    ended = start(
        *["-m", "dreamer.train", *TASK, "--configs", "atari100k", "size200m"],
        *["--logdir", tmp_path, "--run.steps", "1100"],
        XLA_PYTHON_CLIENT_MEM_FRACTION="0.005",
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "memory" in ended.stderr.splitlines()[-1]
