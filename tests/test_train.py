"""Whole runs of the smallest agent: real processes, signals, bad input.

Compiling costs far more than these runs, so a cache of compiled programs is
shared by all tests, and a run's logdir serves several of them.
"""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dreamer import status, train
from dreamer.envs import vector
from dreamer.envs.vector import EnvError
from dreamer.run import lock
from dreamer.run import logdir as logdir_module
from dreamer.run.driver import Driver
from dreamer.run.learner import Learner
from dreamer.settings import load
from dreamer.train_ratio import schedule
from tests.run.test_logger import scalars

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
# Episodes of 40 policy steps; rows of metrics at checkpoints alone.
NO_ROWS = ["--run.log_every", "1e9"]
SHORT = ["--env.atari100k.length", "160"]
PONG = ["--configs", "atari100k", "debug", *SHORT, *NO_ROWS]
GYM = ["--configs", "debug", *NO_ROWS]
TIMED = ("fps/policy", "fps/train", "fps/updates", "fps/waiting")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A folder of compiled programs, for this process and its children."""
    name = "JAX_COMPILATION_CACHE_DIR"
    with pytest.MonkeyPatch.context() as patch:
        if name not in os.environ:
            patch.setenv(name, str(tmp_path_factory.mktemp("cache")))
        # And the settings of a process of its own.
        settings = {
            "jax_compilation_cache_dir": os.environ[name],
        }
        before = {key: getattr(jax.config, key) for key in settings}
        for key, value in settings.items():
            jax.config.update(key, value)
        compilation_cache.reset_cache()
        yield
        for key, value in before.items():
            jax.config.update(key, value)
        compilation_cache.reset_cache()


def start(*argv):
    return subprocess.Popen(
        [sys.executable, "-m", "dreamer.train", *map(str, argv)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*argv):
    """Trains in a process of its own; what it printed."""
    process = start(*argv)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return out


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def saved(logdir):
    """Policy steps of the complete checkpoints."""
    return sorted(
        int(path.name) for path in logdir.glob("ckpt/*") if path.name.isdigit()
    )


def files(folder):
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def pong(tmp_path_factory):
    """A finished run: its logdir and what it printed."""
    logdir = tmp_path_factory.mktemp("pong") / "run"
    return logdir, run(*PONG, "--logdir", logdir)


def test_what_a_run_leaves(pong):
    logdir, _ = pong
    last = rows(logdir / "metrics.jsonl")[-1]
    config = load([*PONG, "--logdir", str(logdir)])
    plan = schedule(config)
    assert plan.total_updates == 33
    assert last["updates"] == last["train/opt/updates"] == 33
    assert last["policy_steps"] == plan.steps == 300
    assert last["frames"] == last["step"] == 1200
    realised, wanted = last["replay/replay_ratio"], plan.replay_ratio
    one_update = config.batch_steps / (plan.steps - plan.first_step)
    assert wanted - one_update < realised <= wanted
    assert last["replay/items"] == 300
    trained = last["fps/updates"] * config.batch_steps
    assert last["fps/train"] == pytest.approx(trained)
    assert np.isfinite(list(last.values())).all()
    assert saved(logdir)[-1] == 300  # a slow machine saves before, too
    told = status.read(logdir)
    assert (told["state"], told["error"]) == ("done", None)
    assert (told["policy_steps"], told["updates"]) == (300, 33)


def test_a_checkpoint_carries_the_settings_of_the_run(pong):
    logdir, _ = pong
    meta = json.loads((logdir / "ckpt" / "300" / "meta.json").read_text())
    header, _, text = (logdir / "config.yaml").read_text().partition("\n")
    assert header.startswith("#")
    assert meta["meta"]["config"] == text


def test_scores_are_written_as_episodes_end(pong):
    logdir, _ = pong
    scores = rows(logdir / "scores.jsonl")
    # An episode is a reset and 40 steps, seen in 41 observations.
    steps = [4 * 41 * n for n in range(1, 8)]
    assert [row["step"] for row in scores] == steps
    assert all(row.keys() == {"step", "episode/score"} for row in scores)
    assert all(row["episode/score"] <= 0 for row in scores)
    lengths = [
        row["episode/length"]
        for row in rows(logdir / "metrics.jsonl")
        if "episode/length" in row
    ]
    assert lengths == [40] * 7


def test_tensorboard_shows_the_same_numbers(pong):
    logdir, _ = pong
    last = rows(logdir / "metrics.jsonl")[-1]
    step = last.pop("step")
    shown = {tag: x for at, tag, x in scalars(logdir) if at == step}
    assert shown == pytest.approx(last, rel=1e-5)


def test_what_a_run_prints(pong):
    logdir, out = pong
    for line in (
        "No accelerator in use: runs on the CPU in float32",
        "  length   300 policy steps = 1,200 frames",
        "  updates  33 on 4 x 8 time steps, one per 8 policy steps",
        f"Logs to {logdir}",
        "  time     ",
        "policy steps 300/300  frames 1,200  updates 33  ratio 3.9",
        f"Done: 33 updates. Everything is in {logdir}",
    ):
        assert line in out
    assert out.count("  time     ") == 1


def test_a_finished_run_is_left_as_it_is(pong, capsys):
    logdir, _ = pong
    before = files(logdir)
    # The saved settings are those of the run.
    settings = ["--configs", str(logdir / "config.yaml")]
    assert train.main(settings) == 0
    assert "Done: 33 updates" in capsys.readouterr().out
    after = files(logdir)
    # But for who was here, and when.
    changed = {x.name for x in after if after[x] != before.get(x)}
    assert changed == {"lock", "starts.jsonl", "report.html", "status.json"}
    assert after.keys() == before.keys()
    last = rows(logdir / "scores.jsonl")[-1]
    assert status.read(logdir)["score"] == last["episode/score"]


def test_a_run_ends_with_its_page(pong):
    logdir, out = pong
    assert f"Report: {logdir}/report.html\n" in out
    text = (logdir / "report.html").read_text()
    assert "<td>33</td><td>33</td>" in text  # updates planned and done


def test_a_run_without_its_page_ends_as_well(tmp_path, capsys):
    train.write_page(SimpleNamespace(logdir=tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"No report page: {tmp_path}: holds no run")


def test_a_run_ends_with_videos(tmp_path):
    argv = [*PONG, "--run.steps", "100", "--run.report_every", "1e9"]
    argv += ["--logdir", str(tmp_path)]
    assert train.main(argv) == 0
    videos = files(tmp_path / "videos")
    assert {path.name for path in videos} == {
        "imagined-000000000400.mp4",
        "open_loop-000000000400.mp4",
    }
    assert train.main(argv) == 0  # and is left as it is
    assert files(tmp_path / "videos") == videos


def test_every_start_is_recorded(pong):
    logdir, _ = pong
    first, *_ = rows(logdir / "starts.jsonl")
    assert first["policy_steps"] == 0
    assert f"-m dreamer.train {' '.join(PONG[:2])}" in first["command"]
    assert first["package_versions"]["jax"] == jax.__version__


def without_times(path):
    return [
        {k: v for k, v in row.items() if k not in TIMED} for row in rows(path)
    ]


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_a_seed_fixes_a_run(pong, tmp_path, seed, same):
    logdir = tmp_path / "run"
    argv = [*PONG, "--logdir", str(logdir), "--seed", str(seed)]
    assert train.main(argv) == 0
    metrics, others = (
        without_times(x / "metrics.jsonl") for x in (logdir, pong[0])
    )
    assert (metrics == others) == same
    if not same:
        loss = "train/loss/image"
        assert metrics[-1][loss] != others[-1][loss]


def wait_for(process, logdir, after):
    """Waits for a checkpoint made later than `after` policy steps."""
    deadline = time.monotonic() + 300
    while not (now := saved(logdir)) or now[-1] <= after:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return now[-1]


def test_killed_terminated_and_continued(pong, tmp_path, capsys):
    logdir = tmp_path / "run"
    argv = [*PONG, "--logdir", str(logdir), "--run.save_every", "0.5"]
    endless = [*argv, "--run.steps", "1000000"]

    process = start(*endless)
    wait_for(process, logdir, 60)
    process.kill()
    process.communicate()
    killed = saved(logdir)[-1]

    process = start(*endless)
    wait_for(process, logdir, killed)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == train.INTERRUPTED == 75, err
    assert f"Continues at policy step {killed:,} after" in out
    assert f"--logdir {logdir}" in out
    terminated = saved(logdir)[-1]
    assert terminated > killed
    assert status.read(logdir)["state"] == "interrupted"
    assert status.read(logdir)["policy_steps"] == terminated
    assert rows(logdir / "metrics.jsonl")[-1]["step"] == 4 * terminated

    total = ["--run.steps", str(terminated + 40)]
    assert train.main([*argv, *total]) == 0
    out = capsys.readouterr().out
    assert f"Continues at policy step {terminated:,} after" in out
    metrics = rows(logdir / "metrics.jsonl")
    plan = schedule(load([*argv, *total]))
    assert metrics[-1]["updates"] == plan.total_updates
    assert metrics[-1]["policy_steps"] == terminated + 40
    assert metrics[-1]["replay/items"] == min(terminated + 40, 1000)
    counted = [row["step"] for row in metrics if "updates" in row]
    assert counted == sorted(set(counted))
    assert len(saved(logdir)) == 2


def test_an_error_in_the_loop_keeps_its_traceback(pong, tmp_path, monkeypatch):
    logdir = shutil.copytree(pong[0], tmp_path / "run")
    before = {x: y for x, y in files(logdir).items() if "ckpt" in x.parts}
    closed = []
    close = vector.Envs.close

    def broken(learner):
        raise ValueError("deep inside")

    monkeypatch.setattr(Learner, "update", broken)
    monkeypatch.setattr(
        vector.Envs, "close", lambda envs: (closed.append(1), close(envs))
    )
    argv = [*PONG, "--logdir", str(logdir), "--run.steps", "400"]
    with pytest.raises(ValueError, match="deep inside"):
        train.main(argv)
    assert closed
    assert not [x for x in threading.enumerate() if x.name.startswith("batch")]
    after = {x: y for x, y in files(logdir).items() if "ckpt" in x.parts}
    assert after == before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_workers_and_an_environment_that_fails(tmp_path):
    logdir = tmp_path / "run"
    argv = [*PONG, "--run.envs", "2", "--run.steps", "200"]
    run(*argv, "--logdir", logdir)
    config = load([*argv, "--logdir", str(logdir)])
    last = rows(logdir / "metrics.jsonl")[-1]
    assert last["policy_steps"] == 200
    assert last["updates"] == schedule(config).total_updates > 10
    # Two environments of their own seeds end their episodes together.
    steps = [row["step"] for row in rows(logdir / "scores.jsonl")]
    assert steps == [4 * 2 * 41] * 2 + [4 * 2 * 82] * 2

    # One that is killed has a successor, as often as is allowed.
    endless = [*argv[:-1], "1000000", "--logdir", logdir]
    process = start(*endless, "--run.env_restarts", "2")
    lines = iter(process.stdout.readline, "")
    assert any("Continues" in line for line in lines)
    told = []
    for _ in range(3):
        os.kill(workers(process)[0], signal.SIGKILL)
        told += [next((x for x in lines if "started again" in x), None)]
    _, err = process.communicate(timeout=60)
    assert "its episode is closed as a truncation" in told[0]
    assert "(1 of 2)" in told[0]
    assert "(2 of 2)" in told[1]
    assert told[2] is None
    assert process.returncode == train.FAILED == 1
    assert "died without a word" in err
    assert status.read(logdir)["state"] == "failed"
    assert status.read(logdir)["error"] in err
    assert "Traceback" not in err
    assert saved(logdir) == [200]


def workers(process):
    """Process ids of the environments of a run."""
    ids = []
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        process.communicate()
        pytest.skip("this system does not list child processes")
    for server in children.read_text().split():
        listed = Path(f"/proc/{server}/task/{server}/children").read_text()
        ids += map(int, listed.split())
    return ids


def test_a_logdir_is_used_by_one_run_at_a_time(tmp_path, capsys):
    logdir = tmp_path / "run"
    process = start(*PONG, "--logdir", logdir, "--run.steps", "1000000")
    assert any("Logs to" in line for line in process.stdout)
    line = refused(capsys, *PONG, "--logdir", logdir)
    assert f"another run is using it (process {process.pid} " in line
    process.kill()
    process.communicate()
    assert train.main([*PONG, "--logdir", str(logdir)]) == 0


def test_a_disk_that_stays_full_ends_a_run_in_one_line(tmp_path):
    logdir = tmp_path / "run"
    argv = [*PONG, "--logdir", logdir, "--run.steps", "1000000"]
    argv += ["--run.save_every", "0.3", "--run.disk_patience", "2"]
    process = start(*argv)
    wait_for(process, logdir, 60)
    limits = (20_000, resource.RLIM_INFINITY)  # bytes of any file
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
    out, err = process.communicate(timeout=120)
    assert process.returncode == train.FAILED
    kept = saved(logdir)[-1]
    assert "cannot be written: " in out
    assert err.count("\n") == 1
    assert f"the checkpoint of policy step {kept:,} is whole" in err
    # With space again, the same command goes on.
    process = start(*argv)
    assert any(
        f"Continues at policy step {kept:,} " in line
        for line in process.stdout
    )
    process.kill()
    process.communicate()


def test_output_that_cannot_be_written_does_not_end_a_run(tmp_path):
    command = [sys.executable, "-m", "dreamer.train", *PONG]
    command += ["--logdir", str(tmp_path), "--run.steps", "100"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert status.read(tmp_path)["state"] == "done"
    assert saved(tmp_path)[-1] == 100


def test_a_disk_that_is_full_at_the_start_may_have_space_later(
    tmp_path, capsys, monkeypatch
):
    def full(logdir):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock, "acquire", full)
    logdir = tmp_path / "run"
    code = train.main([*PONG, "--logdir", str(logdir)])
    line = f"dreamer.train: logdir={logdir}: No space left on device\n"
    assert (code, capsys.readouterr().err) == (train.FAILED, line)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_its_reason_and_its_page(
    tmp_path, capsys, monkeypatch
):
    trace = "Traceback (most recent call last):\n  File\nKeyError: 'x'\n"

    def broken(driver, params):
        raise EnvError(f"environment 0 failed:\n{trace}")

    monkeypatch.setattr(Driver, "step", broken)
    argv = [*PONG, "--logdir", str(tmp_path)]
    assert train.main(argv) == train.FAILED
    out, err = capsys.readouterr()
    assert err == f"dreamer.train: environment 0 failed:\n{trace}\n"
    told = status.read(tmp_path)
    assert told["state"] == "failed"
    assert told["error"] == "environment 0 failed: KeyError: 'x'"
    assert f"Report: {tmp_path}/report.html\n" in out

    def no_page(logdir):
        raise ValueError("no page")

    monkeypatch.setattr(train.page, "write", no_page)
    assert train.main(argv) == train.FAILED
    assert capsys.readouterr().err == err


def test_a_run_that_diverges_ends_in_one_line(tmp_path, capsys):
    logdir = tmp_path / "run"
    argv = [*PONG, "--logdir", str(logdir), "--agent.opt.warmup", "0"]
    argv += ["--agent.opt.lr", "1e30", "--run.nonfinite_limit", "3"]
    assert train.main(argv) == train.FAILED
    out, err = capsys.readouterr()
    assert "loss or gradient is not finite; it was not applied" in out
    assert err.startswith("dreamer.train: 3 updates in a row")
    assert err.count("\n") == 1
    assert len(list((logdir / "nonfinite").glob("update-*.npz"))) >= 3


def test_out_of_memory_is_one_line(tmp_path, capsys, monkeypatch):
    def greedy(self, params):
        np.empty(2**60, np.uint8)

    monkeypatch.setattr(Driver, "step", greedy)
    code = train.main([*PONG, "--logdir", str(tmp_path / "run")])
    err = capsys.readouterr().err
    assert code == train.FAILED
    assert err.startswith("dreamer.train: out of memory: an allocation of ")
    assert "replay.size=1000" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_gym(task, tmp_path):
    logdir = tmp_path / "run"
    argv = [*GYM, "--task", f"gym_{task}", "--run.train_ratio", "-1"]
    argv += ["--run.steps", "60", "--logdir", str(logdir)]
    assert train.main(argv) == 0
    last = rows(logdir / "metrics.jsonl")[-1]
    # One update every policy step, from the 40th on.
    assert last["updates"] == 21
    assert last["replay/replay_ratio"] == 4 * 8
    assert last["frames"] == 60
    assert np.isfinite(last["train/opt/loss"])


def refused(capsys, *argv):
    """The one line of a run that is refused."""
    try:
        code = train.main([str(x) for x in argv])
    except SystemExit as error:
        code = error.code
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("dreamer.train: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--logdir", "/proc/dreamer"], "logdir=/proc/dreamer: "),
        (["--jax.platform", "tpu"], "jax.platform=tpu: "),
        (
            ["--replay.size", "1e12", "--run.steps", "1e12"],
            "replay.size: 1000000000000 steps of ",
        ),
        (["--task", "gym_CartPol-v1"], "CartPole"),
        (["--task", "gym_CartPol-v1", "--run.envs", "2"], "CartPole"),
        (["--task", "gym_nowhere:Thing-v0"], "nowhere"),
        (["--task", "atari100k_pongg"], "atari100k_pong?"),
        (["--run.stepz", "3"], "run.steps?"),
        (["--logger.outputs", "wandb"], "pip install wandb"),
    ],
)
def test_refused_before_anything_is_created(
    flags, words, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = jax.config.jax_platforms
    if "--logdir" not in flags:
        flags = [*flags, "--logdir", tmp_path / "run"]
    gym = any(str(flag).startswith("gym_") for flag in flags)
    try:
        line = refused(capsys, *(GYM if gym else PONG), *flags)
    finally:
        jax.config.update("jax_platforms", before)
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_not_taken_for_a_refusal(tmp_path, monkeypatch):
    """Who starts runs tries again, and who mends it sees where it is."""

    def bug(*arguments, **options):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("dreamer.run.state.Agent", bug)
    with pytest.raises(ValueError, match="operands could not be broadcast"):
        train.main([*GYM, "--logdir", str(tmp_path / "run")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_in_the_way_of_the_logdir(name, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    line = refused(capsys, *PONG, "--logdir", tmp_path / name)
    assert "is a file" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_a_logdir_that_is_not_writable(tmp_path, capsys, monkeypatch):
    # Root may write anywhere, so ask for the answer that others get.
    monkeypatch.setattr(logdir_module.os, "access", lambda path, mode: False)
    line = refused(capsys, *PONG, "--logdir", tmp_path / "new" / "run")
    assert f"{tmp_path} is not writable" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "flags", "words"),
    [
        ("config.yaml", "task: [", [], "config.yaml, line "),
        ("config.yaml", "tusk: atari_pong", [], "config.yaml: "),
        ("config.yaml", "\0\1", [], "config.yaml: "),
        ("metrics.jsonl", "not json\n", [], "metrics.jsonl: "),
        ("metrics.jsonl", "[1]\n", [], "metrics.jsonl: "),
        ("ckpt/300/meta.json", "{", [], "no checkpoint is whole: 300 "),
        (None, "", ["--seed", "1"], "seed=1 (there 0)"),
        (None, "", ["--batch_size", "5"], "batch_size=5 (there 4)"),
    ],
)
def test_a_logdir_of_another_run_or_damaged(
    name, text, flags, words, pong, tmp_path, capsys
):
    logdir = shutil.copytree(pong[0], tmp_path / "run")
    if name:
        (logdir / name).write_text(text)
    before = files(logdir)
    more = ["--run.steps", "400"]
    line = refused(capsys, *PONG, "--logdir", logdir, *more, *flags)
    assert words in line
    assert files(logdir) == before


def test_an_error_of_the_command_line_as_a_shell_sees_it(tmp_path):
    process = start(*PONG, "--logdir", tmp_path / "run", "--seed", "-1")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("dreamer.train: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
