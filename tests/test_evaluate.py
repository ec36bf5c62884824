"""The command: what it writes, says and refuses."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import av
import numpy as np
import pytest

from dreamer import evaluate
from dreamer.run.checkpoint import Checkpoints
from dreamer.run.episodes import Evaluation
from dreamer.scores.evaluation_file import read_evaluation
from dreamer.video import Film
from tests.refusals import files, outcome
from tests.run.trained import CARTPOLE, PONG, checkpoint, programs_kept

ROOT = Path(__file__).resolve().parent.parent
# Games of 20 policy steps.
FEW = "--episodes 3 --envs 1"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with programs_kept(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def pong(tmp_path_factory):
    """A logdir; what is added to it are files of evaluations alone."""
    logdir = tmp_path_factory.mktemp("pong") / "run"
    checkpoint(logdir, PONG)
    return logdir


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("cartpole") / "run"
    checkpoint(logdir, CARTPOLE)
    return logdir


def run(logdir, flags, out=None):
    """The contents of the file."""
    before = files(logdir)
    argv = ["--logdir", str(logdir), *flags.split()]
    argv += ["--out", str(out)] if out else []
    assert evaluate.main(argv) == 0
    after = files(logdir)
    assert {path: after[path] for path in before} == before
    new = [path for path in after if path not in before]
    path = out or next(x for x in new if x.suffix == ".json")
    return path, json.loads(path.read_text())


def test_scores_and_films_of_a_game(pong, capsys):
    path, found = run(pong, f"{FEW} --video 2")
    assert path == pong / "eval-300-sample-episodes3.json"
    said = capsys.readouterr().out
    assert "Mean score" in said
    assert f"Written: {path}" in said
    episodes = found["episodes"]
    assert [x["length"] for x in episodes] == [20] * 3
    assert [x["env"] for x in episodes] == [0] * 3
    mean = sum(x["score"] for x in episodes) / 3
    assert found["mean"] == pytest.approx(mean)
    assert found["human"] == 14.6
    assert found["human_normalized"]["mean"] == pytest.approx(
        (mean + 20.7) / 35.3
    )
    expected = {"checkpoint": 300, "frames": 1200, "updates": 0, "seed": 0}
    expected |= {"format": 1, "task": "atari100k_pong", "mode": "sample"}
    assert expected.items() <= found.items()
    films = [x.get("video") for x in episodes]
    names = [f"videos/{path.stem}-00{n}.mp4" for n in range(2)]
    assert films == [*names, None]
    with av.open(str(pong / names[0])) as film:
        assert film.streams.video[0].average_rate == 15
        # The reset and 20 steps.
        assert len(list(film.decode(video=0))) == 21


@pytest.mark.parametrize(
    ("metadata", "fps"),
    [
        ({"render_fps": 60}, 60),
        ({"render_fps": np.int64(15)}, 15),
        ({"render_fps": np.float32(12.5)}, 12.5),
        ({"render_fps": 0.5}, 0.5),
        *(
            ({"render_fps": x}, evaluate.FPS)
            for x in ("60", -1, 0, None, [5], 1e300, 1e-300, float("nan"))
        ),
        ({}, evaluate.FPS),
        (None, evaluate.FPS),
    ],
)
def test_the_speed_of_films(metadata, fps, tmp_path):
    found = evaluate._fps(metadata)
    assert found == fps
    Film(tmp_path / "x.mp4", found / 64)  # the most frames of an action


def test_the_home_folder(cartpole, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    argv = f"--logdir {cartpole} --episodes 1 --out=~/x.json".split()
    assert evaluate.main(argv) == 0
    assert {x.name for x in tmp_path.iterdir()} == {"x.json"}


def test_the_same_command_gives_the_same_scores(cartpole, tmp_path):
    def episodes(flags):
        _, found = run(cartpole, f"--episodes 5 {flags}", tmp_path / "x.json")
        return [(x["score"], x["length"]) for x in found["episodes"]]

    first = episodes("--envs 2")
    assert first == episodes("--envs 2")
    assert first != episodes("--envs 2 --seed 1")


def test_a_copied_checkpoint_and_another_name(cartpole, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("meta.json", "state.arrays"):
        content = (cartpole / "ckpt" / "300" / name).read_bytes()
        (copy / name).write_bytes(content)
    flags = "--episodes 2 --envs 1 --mode argmax --seed 7 --length 3"
    path, found = run(copy, f"{flags} --env.gym.repeat 2")
    name = "eval-300-argmax-seed7-length3-episodes2-repeat=2.json"
    assert path.name == name
    assert path.parent == copy
    assert [x["length"] for x in found["episodes"]] == [3, 3]
    assert found["cut_short"] == 2
    assert found["settings"] == {"env.gym.repeat": "2"}
    assert (found["random"], found["human_normalized"]) == (None, None)
    assert "of which 2 reached the limit" in capsys.readouterr().out


def test_a_setting_that_is_the_runs_own_changes_nothing(cartpole, tmp_path):
    flags = "--episodes 1 --env.gym.repeat 1 --jax.platform cpu"
    path, found = run(cartpole, flags, tmp_path / "eval.json")
    assert found["settings"] == {"jax.platform": "cpu"}
    assert read_evaluation(path).usual


def test_the_beginning_of_a_game_is_not_normalised(pong, tmp_path):
    flags = "--episodes 2 --envs 1 --length 5"
    _, found = run(pong, flags, tmp_path / "x.json")
    assert [x["length"] for x in found["episodes"]] == [5, 5]
    assert found["cut_short"] == 2
    assert found["human_normalized"] is None


def test_whoever_has_a_lock_on_the_run(cartpole, tmp_path):
    """A run in progress: its lock is held, a checkpoint half written."""
    (cartpole / "ckpt" / "400.tmp").mkdir(exist_ok=True)
    (cartpole / "lock").write_text("{}")
    _, found = run(cartpole, "--episodes 1", tmp_path / "x.json")
    assert found["checkpoint"] == 300
    assert found["ci95"] is found["std"] is None
    assert Checkpoints(cartpole).latest == 300


BAD = [
    ("", "--logdir"),
    ("--logdir ''", "--logdir: expected a path, and it is empty"),
    ("--logdir {run} --out ''", "--out: expected a path, and it is empty"),
    ("--logdir {here}/none", "there is no such folder"),
    ("--logdir {here}", "holds no run"),
    ("--logdir {run} {run}", "expected --FLAG VALUE"),
    ("--logdir {run} --checkpoint 5", "expected one of 300"),
    ("--logdir {run} --checkpoint newest", "expected a whole number"),
    ("--logdir {run} --mode best", "'sample', 'argmax'"),
    ("--logdir {run} --envs 0", "expected a whole number from 1 to 4096"),
    ("--logdir {run} --episodes -3", "--episodes"),
    ("--logdir {run} --episodes " + "9" * 5000, "--episodes"),
    ("--logdir {run} --episode 3", "did you mean episodes"),
    ("--logdir {run} --video 3 --episodes 2", "expected at most --episodes 2"),
    ("--logdir {run} --episodes 2 --video 2", "CartPole-v1"),
    ("--logdir {run} --configs debug", "the run's settings hold"),
    ("--logdir {run} --run.steps 4", "cannot differ from the run's"),
    ("--logdir {run} --env.gym.sise 1", "did you mean env.gym.size"),
    ("--logdir {run} --jax.platform tpu", "jax.platform=tpu"),
    ("--logdir {run} --jax.platform", "a value is missing"),
    ("--logdir {run} --out {run}", "expected a file, it is a folder"),
    ("--logdir {run} --out {run}/lock/x.json", "not writable"),
    ("--logdir {pong} --env.atari100k.size 96,96", "holds other parameters"),
    ("--logdir {here}/damaged", "meta.json: damaged"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_bad_input_is_one_line(cartpole, pong, tmp_path, text, words):
    (cartpole / "lock").write_text("{}")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "meta.json").write_text('{"crc32')
    argv = shlex.split(text.format(here=tmp_path, run=cartpole, pong=pong))
    before = files(cartpole.parent)
    line = outcome("dreamer.evaluate", evaluate.main, argv, tmp_path)
    assert words in line
    assert files(cartpole.parent) == before


def test_a_device_is_not_replaced_by_a_file(cartpole, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    argv = f"--logdir {cartpole} --episodes 1 --out {tmp_path}/pipe".split()
    assert evaluate.main(argv) == 2
    assert "pipe: expected a file, it is a device" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()


def test_a_disk_that_takes_nothing(cartpole, tmp_path, capsys, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "x.json"
    argv = f"--logdir {cartpole} --episodes 1 --out {out}".split()
    assert evaluate.main(argv) == 1
    said = capsys.readouterr()
    assert said.err == (
        f"dreamer.evaluate: [Errno 28] No space left on device: '{out}'\n"
    )
    assert "Mean score" in said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_films_at_most(pong, tmp_path, number):
    argv = ["--logdir", pong, "--episodes", 10**6, "--video", 10**6]
    argv += ["--envs", 2, "--out", tmp_path / "out" / "x.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamer.evaluate", *map(str, argv)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.rglob("*.mp4")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        evaluate.INTERRUPTED,
        "dreamer.evaluate: interrupted; no scores are written\n",
    )
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("*.json"))


def test_a_signal_in_the_last_step_takes_no_score_away(
    cartpole, tmp_path, monkeypatch
):
    step = Evaluation.step

    def interrupted(evaluation):
        step(evaluation)
        if evaluation.finished:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Evaluation, "step", interrupted)
    _, found = run(cartpole, "--episodes 2", tmp_path / "x.json")
    assert len(found["episodes"]) == 2


def snippets():
    """The README's lines of Python that load a checkpoint."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [x for x in blocks if "dreamer.run.policy" in x]


def test_the_lines_of_the_readme(pong, capsys):
    (code,) = snippets()
    assert "~/logdir/quick" in code
    code = code.replace("~/logdir/quick", str(pong))
    exec(compile(textwrap.dedent(code), "README.md", "exec"), {})
    assert re.search(r"-?\d", capsys.readouterr().out)
