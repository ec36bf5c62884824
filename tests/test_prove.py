"""The agent learns: small tasks are solved, and the table says so honestly."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamer.settings import load

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "prove.py"


@pytest.fixture(scope="module")
def prove():
    spec = importlib.util.spec_from_file_location("prove", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["prove"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["prove"]


def command(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.slow
def test_the_agent_learns_to_wait_for_a_reward(tmp_path):
    """Solved after some 3,500 steps; random is 0.47, impatience 0.2."""
    done = command("doors", "--run.steps", 5000, "--logdir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    head, row = done.stdout.splitlines()
    assert head.split()[4] == "score"
    # name, two words of need, seed, random, score, from, to, best, way
    score, low, high = map(float, row.split()[5:8])
    assert 0.9 < score <= 1.0
    assert low <= score <= high
    assert row.endswith("solved")


@pytest.mark.long
@pytest.mark.parametrize("task", ["catch", "recall", "cartpole", "pendulum"])
def test_the_agent_learns_the_other_tasks(tmp_path, task):
    done = command(task, "--logdir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_way_from_chance_to_the_best(prove):
    rows = [
        prove.Result("pendulum", 0, score, 0, 0, 0)
        for score in (-1236.0, -250.0, -240.0, -138.6)
    ]
    assert [round(row.way, 2) for row in rows] == [0, 0.9, 0.91, 1]
    assert [row.solved for row in rows] == [False, False, True, True]
    assert str(rows[0]).endswith("NOT SOLVED")


def test_one_task_that_is_not_solved_fails_all(
    prove, tmp_path, monkeypatch, capsys
):
    scores = {"catch": 5.0, "doors": 0.7}
    monkeypatch.setattr(
        prove, "prove", lambda x, *_: prove.Result(x, 0, scores[x], 0, 0, 0)
    )
    place = ["--logdir", str(tmp_path)]
    assert prove.main(["catch", *place]) == 0
    assert prove.main(["catch", "doors", *place]) == 1
    assert "NOT SOLVED" in capsys.readouterr().out


def test_a_training_that_fails_is_said_in_one_line(tmp_path):
    (tmp_path / "doors-0").mkdir()
    (tmp_path / "doors-0" / "config.yaml").write_text("seed: 3")
    done = command("doors", "--logdir", tmp_path)
    log = tmp_path / "doors-0.log"
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"prove: dreamer.train failed: {log} says why"
    ]
    assert "other settings" in log.read_text()


def test_a_training_that_fails_ends_no_other(
    prove, tmp_path, monkeypatch, capsys
):
    def failing(name, seed, *_):
        if (name, seed) == ("catch", 0):
            raise RuntimeError("why")
        return prove.Result(name, seed, 5.0, 0, 0, 0)

    monkeypatch.setattr(prove, "prove", failing)
    argv = ["catch", "--seeds", "9", "--logdir", str(tmp_path)]
    assert prove.main(argv) == 1
    said = capsys.readouterr()
    assert said.err == "prove: why\n"
    seeds = [x.split()[2] for x in said.out.splitlines()[1:]]
    assert seeds == list("12345678")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["chess"], "TASK chess: no such task: catch, recall, "),
        (["cach"], "TASK cach: no such task; did you mean catch?"),
        (["doors", "doors"], "TASK doors: given twice"),
        (["--seeds", "0"], "--seeds: 0: expected a whole number from 1"),
        (["--run.steps", "x"], "--run.steps=x: expected a whole number"),
        (["doors", "--seed", "3"], "--seed"),
        (["--jax.compute_dtype", "float8"], "--jax.compute_dtype"),
        (["--jax.dtype", "bfloat16"], "--jax.dtype"),
        (["--seeds", "2", "doors"], "doors: expected before all flags"),
        (["--logdir", "{here}/file/x"], "/file is a file"),
        (["--logdir", "/proc/x"], "/proc/x: "),
        (["--logdir", ""], "--logdir: expected a path, and it is empty"),
    ],
)
def test_what_cannot_be_is_refused(prove, tmp_path, capsys, arguments, word):
    (tmp_path / "file").write_text("")
    assert prove.main([x.format(here=tmp_path) for x in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("prove: ")
    assert word in line


def test_help_names_tasks_and_defaults(prove, capsys):
    with pytest.raises(SystemExit):
        prove.main(["--help"])
    said = capsys.readouterr().out
    for words in (*prove.PROOFS, "default: 1", "default: ~/logdir/proof"):
        assert words in said


def test_flags_of_training_change_every_training(prove, tmp_path):
    flags = prove.parse(
        ["doors", "--logdir", str(tmp_path), "--jax.compute_dtype", "bfloat16"]
    )
    config = load(prove.training("doors", 2, flags))
    assert config.jax.compute_dtype == "bfloat16"
    assert config.jax.platform == "cpu"
    assert (config.seed, config.run.steps) == (2, 14_000)
    assert config.logdir == str(tmp_path / "doors-2")
    flags = prove.parse(["doors", "--run.steps", "99"])
    assert load(prove.training("doors", 0, flags)).run.steps == 99
    flags = prove.parse(["doors", "--jax.platform=cuda"])
    config = load(prove.training("doors", 0, flags))
    assert config.jax.platform == "cuda"
    assert prove.platform(flags) == []


FAKE = """
import pathlib, signal, sys, time
here = pathlib.Path(sys.argv[sys.argv.index("--logdir") + 1])
here.mkdir()
def save(*_):
    (here / "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(here / "ready").touch()
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_trainings_save(tmp_path, number):
    """Two at a time at most; those to come are not begun."""
    script = tmp_path / "scripts" / "prove.py"
    script.parent.mkdir()
    script.write_text(SCRIPT.read_text())
    (tmp_path / "dreamer").symlink_to(ROOT / "dreamer")
    (tmp_path / "fake" / "dreamer").mkdir(parents=True)
    (tmp_path / "fake" / "dreamer" / "__init__.py").touch()
    (tmp_path / "fake" / "dreamer" / "train.py").write_text(FAKE)
    runs = tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, script, "--seeds", "40", "--logdir", runs],
        cwd=tmp_path / "fake",  # where -m looks first
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(runs.glob("*/ready")):
        if process.poll() is not None or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (
        75,
        "prove: interrupted; the same command goes on\n",
    )
    begun, saved = list(runs.glob("*/ready")), list(runs.glob("*/saved"))
    assert len(begun) == len(saved) <= len(os.sched_getaffinity(0))
