"""The agent learns: small tasks are solved, and the table says so honestly."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

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
    done = command("doors", "--steps", 5000, "--logdir", tmp_path)
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


def test_one_task_that_is_not_solved_fails_all(prove, monkeypatch, capsys):
    scores = {"catch": 5.0, "doors": 0.7}
    monkeypatch.setattr(
        prove, "prove", lambda x, *_: prove.Result(x, 0, scores[x], 0, 0, 0)
    )
    assert prove.main(["catch"]) == 0
    assert prove.main(["catch", "doors"]) == 1
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


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["chess"], "'chess'"), (["--seeds", "0"], "0"), (["--steps", "x"], "x")],
)
def test_what_does_not_exist_is_refused(arguments, word):
    done = command(*arguments)
    assert done.returncode == 2
    assert word in done.stderr.splitlines()[-1]
