"""The command: plans, refuses, starts runs, shows and becomes them."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer import sweep
from dreamer.settings import load, save
from dreamer.status import Status
from dreamer.sweeps import grid, output, record, standing
from tests.refusals import files, outcome
from tests.run.trained import programs_kept

ROOT = Path(__file__).resolve().parent.parent
DEBUG = ["--configs", "debug", "--task", "gym_CartPole-v1"]
SLURM = ["--launcher", "slurm"]
K8S = ["--launcher", "k8s", "--image", "lab/dreamer", "--pvc", "logs"]


@pytest.fixture
def fakes(monkeypatch):
    """In place of real runs some that are done at once."""
    module = "tests.sweeps.fake_train"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(
        grid.Run,
        "command",
        property(lambda run: [module, "done", run.config.logdir]),
    )


def refusal(folder, *words):
    argv = ["--logdir", str(folder), *words]
    return outcome("dreamer.sweep", sweep.main, argv, folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run.step", "5"], "did you mean run.steps?"),
        (["--job", "5"], "--job: unknown flag or setting; did you mean jobs?"),
        (["--seed", "1,1"], "--seed: 1 is given twice"),
        (["--seeds", "2", "--seed", "1"], "--seeds: expected without --seed"),
        (["--seeds", "0"], "--seeds: 0: expected a whole number from 1"),
        (["--agent.opt.lr", "1,-1"], "expected a finite number > 0"),
        (["--configs", "size12"], "did you mean size12m?"),
        (["--config", "debug"], "did you mean configs?"),
        (["--hours", "x"], "--hours: x: expected a number > 0"),
        (["--hours", "1e7"], "--hours: 1e7: expected a number > 0 and < 1e6"),
        (["--launcher", "lsf"], "--launcher"),
        (["--partition", "a"], "--partition: only with --launcher slurm"),
        (["--concurrent", "2"], "only with --launcher slurm or k8s"),
        (["--launcher", "k8s"], "--launcher k8s: expected --image IMAGE"),
        ([*K8S, "--configs", "my.yaml"], "--configs my.yaml: expected preset"),
        ([*K8S, "--mem", "1 G"], "--mem: 1 G: expected letters, digits"),
        ([*SLURM, "--time", "2h"], "--time: 2h: expected minutes, M:S, H:M:S"),
        ([*SLURM, "--time", "3"], "--time=3: expected more than 180 seconds"),
        ([*SLURM, "--time", "3:00"], "--time=3:00: expected more than 180"),
        (
            [*SLURM, "--time", "0-1:05", "--grace", "3900"],
            "--time=0-1:05: expected more than 3960 seconds",
        ),
        (["--gpus", "0,1", "--jobs", "3"], "--jobs 3: expected at most 2"),
        (["--gpus", "0,0"], "--gpus: 0,0: expected GPUs as in 0,1, each of"),
        (["--gpus", ","], "--gpus: ,: expected GPUs as in 0,1"),
        (["--gpus=0,-1"], "--gpus: 0,-1: expected GPUs as in 0,1"),
        (
            ["--gpus", "0", "--jax.platform", "cpu"],
            "--gpus 0: expected where runs use a GPU; --jax.platform is cpu",
        ),
        (["stray"], "expected --configs or --key value"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, words, message):
    assert message in refusal(tmp_path, *words)


def test_the_ram_of_a_cluster_is_told_per_run(tmp_path, capsys):
    argv = ["--configs", "atari100k", "--seeds", "3", "--dry-run"]
    argv += ["--logdir", str(tmp_path)]
    assert sweep.main([*argv, *K8S, "--concurrent", "20"]) == 0
    words = capsys.readouterr().out
    assert "a run" in words
    assert "GB for" not in words


def test_no_slurm_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refusal(tmp_path, "--launcher", "slurm")
    assert "no sbatch on the PATH" in line


def tools(folder, monkeypatch, **texts):
    """Programs of Slurm that do as the test says."""
    made = folder / "bin"
    made.mkdir()
    for name, text in texts.items():
        (made / name).write_text(f"#!/bin/sh\n{text}\n")
        (made / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{made}:/usr/bin:/bin")


def test_no_controller_to_submit_to(tmp_path, monkeypatch):
    down = "echo 'cannot contact the controller' >&2; exit 1"
    tools(tmp_path, monkeypatch, sbatch=down, squeue=down)
    folder = tmp_path / "made" / "sweep"
    line = refusal(tmp_path, "--logdir", str(folder), "--launcher", "slurm")
    assert "squeue: cannot contact the controller" in line


def test_what_slurm_refuses_leaves_nothing(tmp_path, monkeypatch, capsys):
    tools(tmp_path, monkeypatch, sbatch="exit 1", squeue="exit 0")
    argv = [*DEBUG, "--launcher", "slurm", "--logdir"]
    folder = tmp_path / "made" / "sweep"
    before = files(tmp_path)
    assert sweep.main([*argv, str(folder)]) == 2
    assert "sbatch: failed" in capsys.readouterr().err
    assert files(tmp_path) == before
    # Nor among runs of an earlier command.
    found = record.Record(tmp_path, {"a-0": record.Entry([])})
    found.write()
    with record.hold(tmp_path):
        pass
    assert sweep.main([*argv, str(tmp_path)]) == 2
    assert record.read(tmp_path) == found
    assert (tmp_path / "lock").exists()


def test_what_another_first_command_submitted_stays(
    tmp_path, monkeypatch, capsys
):
    """It ends while this one, which then fails, waits for the lock."""
    fail = tmp_path / "fail"
    tools(
        tmp_path,
        monkeypatch,
        sbatch=f"test -f {fail} && exit 1; echo 5",
        squeue="exit 0",
    )
    folder = tmp_path / "sweep"
    argv = ["--configs", "debug", "--logdir", str(folder), *SLURM, "--task"]
    real, waits = record.hold, [1]

    def hold(folder):
        if waits:
            waits.clear()
            assert sweep.main([*argv, "gym_CartPole-v1"]) == 0
            fail.touch()
        return real(folder)

    monkeypatch.setattr(record, "hold", hold)
    assert sweep.main([*argv, "gym_Acrobot-v1"]) == 2
    assert "sbatch: failed" in capsys.readouterr().err
    found = record.read(folder)
    assert [job.id for job in found.jobs] == ["5"]
    assert list(found.runs) == ["gym_CartPole-v1-0"]
    assert (folder / "lock").exists()


def test_what_is_submitted_stays_recorded(tmp_path, monkeypatch):
    """Also if nobody is there any more to be told of it."""
    tools(tmp_path, monkeypatch, sbatch="echo 5", squeue="exit 0")

    def say(text, *_, **__):
        if text.startswith("Submitted"):
            raise BrokenPipeError

    monkeypatch.setattr("builtins.print", say)
    folder = tmp_path / "sweep"
    argv = [*DEBUG, "--launcher", "slurm", "--logdir", str(folder)]
    assert sweep.main(argv) == 2
    assert [job.id for job in record.read(folder).jobs] == ["5"]


def test_a_task_that_cannot_be_built(tmp_path):
    words = ["--task", "gym_Vecc-v0", "--env.import", "zoo"]
    line = refusal(tmp_path, "--configs", "debug", *words)
    assert "env.import=zoo: no module named 'zoo'" in line


def test_folders_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(tmp_path, "--logdir", f"{tmp_path}/file/a")
    (tmp_path / "config.yaml").write_text("")
    assert "is the folder of a run" in refusal(tmp_path, *DEBUG)
    empty = "--logdir: expected a path, and it is empty"
    assert empty in refusal(tmp_path, "--logdir", "")
    assert "without { }" in refusal(tmp_path / "{timestamp}")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert f"{tmp_path} is not writable" in refusal(tmp_path / "a")


def test_only_the_folder_of_the_sweep_has_to_be_in_reach(
    tmp_path, monkeypatch
):
    """Neither ~/logdir, nor where the sweep was before it was moved."""
    monkeypatch.setenv("HOME", "/dev/null")
    argv = [*DEBUG, "--logdir", str(tmp_path)]
    assert sweep.main([*argv, "--dry-run"]) == 0
    logdir = tmp_path / "gym_CartPole-v1-0"
    logdir.mkdir()
    config = load([*DEBUG, "--logdir", str(logdir)])
    moved = dataclasses.replace(config, logdir="/dev/null/sweep/a-0")
    save(moved, logdir / "config.yaml")
    assert sweep.main([*argv, "--dry-run"]) == 0


def test_a_record_that_is_damaged(tmp_path):
    (tmp_path / "sweep.json").write_text("{")
    assert "sweep.json: is not as a sweep" in refusal(tmp_path, *DEBUG)


def test_a_plan_alone_changes_nothing(tmp_path, capsys):
    argv = ["--configs", "atari100k", "size12m", "--task", "all26"]
    argv += ["--seeds", "5", "--hours", "2", "--logdir", f"{tmp_path}/a"]
    assert sweep.main([*argv, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "130: 130 waiting; 130 to do" in out
    assert "14,300,000 policy steps" in out
    assert "about 260 hours of runs" in out
    assert not files(tmp_path)


def test_the_same_command_goes_on_and_another_adds_runs(
    tmp_path, capsys, fakes
):
    argv = [*DEBUG, "--run.steps", "10", "--logdir", str(tmp_path)]
    assert sweep.main([*argv, "--seeds", "2"]) == 0
    assert sweep.main([*argv, "--seeds", "3"]) == 0
    names = [f"gym_CartPole-v1-{seed}" for seed in range(3)]
    assert list(record.read(tmp_path).runs) == names
    for name in names:
        assert len((tmp_path / name / "starts").read_text().split("\n")) == 2
    out = capsys.readouterr().out
    assert "3: 2 done, 1 waiting; 1 to do" in out
    assert sweep.main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("\n3 runs: 3 done\n")


def test_runs_of_other_machines_are_left_and_said(tmp_path, capsys, fakes):
    argv = [*DEBUG, "--run.steps", "10", "--logdir", str(tmp_path)]
    (tmp_path / "gym_CartPole-v1-1").mkdir()
    status = Status(tmp_path / "gym_CartPole-v1-1", 10, 0)
    status._values["host"] = "elsewhere"
    status.write("running")
    assert sweep.main([*argv, "--seeds", "2"]) == 75
    last = capsys.readouterr().out.splitlines()[-1]
    words = "1 runs are left to other machines; the same command looks again"
    assert last == words
    status.write("done", policy_steps=10)
    assert sweep.main([*argv, "--seeds", "2"]) == 0
    assert capsys.readouterr().out.endswith(f"is in {tmp_path}\n")


@pytest.mark.parametrize(("behaviour", "code"), [("done", 0), ("fails", 1)])
@pytest.mark.parametrize("closed", [False, True])
def test_output_that_cannot_go_changes_no_exit_code(
    tmp_path, behaviour, code, closed
):
    command = [*fake(behaviour), *DEBUG, "--run.steps", "10"]
    where = 'exec "$@" >&- 2>&-' if closed else 'exec "$@" >/dev/full 2>&1'
    ended = subprocess.run(
        ["sh", "-c", where, "sh", *command, "--logdir", str(tmp_path)],
        check=False,
        cwd=ROOT,
    )
    assert ended.returncode == code
    starts = (tmp_path / "gym_CartPole-v1-0" / "starts").read_text()
    assert len(starts.splitlines()) == code + 1


def test_the_same_run_has_no_second_name(tmp_path, fakes, capsys):
    argv = [*DEBUG, "--run.steps", "10", "--logdir", str(tmp_path)]
    assert sweep.main([*argv, "--agent.opt.lr", "1e-4,2e-5"]) == 0
    capsys.readouterr()
    line = refusal(tmp_path, *argv[:-2], "--agent.opt.lr", "1e-4")
    assert "gym_CartPole-v1-0: is the same run as gym_CartPole-v1-ag" in line


def test_a_second_sweep_of_the_folder_is_refused(tmp_path, capsys):
    with record.hold(tmp_path):
        before = files(tmp_path)
        assert sweep.main([*DEBUG, "--logdir", str(tmp_path)]) == 2
        assert files(tmp_path) == before
    assert "another sweep is using it" in capsys.readouterr().err


def test_other_settings_are_refused(tmp_path, fakes):
    assert (
        sweep.main([*DEBUG, "--run.steps", "10", "--logdir", str(tmp_path)])
        == 0
    )
    line = refusal(tmp_path, *DEBUG, "--batch_size", "7")
    assert "batch_size=7 (there 4)" in line


def test_a_manifest_leaves_out_what_is_done_or_going_on(tmp_path, capsys):
    for seed, state in ((0, "done"), (1, "running")):
        logdir = tmp_path / f"gym_CartPole-v1-{seed}"
        logdir.mkdir()
        Status(logdir, 300, 300).write(state)
    argv = [*DEBUG, *K8S, "--seeds", "3", "--logdir", str(tmp_path)]
    with output.open_locked(logdir):
        assert sweep.main(argv) == 0
    text = (tmp_path / "k8s-0.yaml").read_text()
    assert "completions: 1\n" in text
    assert "gym_CartPole-v1-2" in text
    assert "kubectl apply -f" in capsys.readouterr().out


def test_a_second_manifest_leaves_out_what_the_first_has(tmp_path, capsys):
    argv = [*DEBUG, *K8S, "--logdir", str(tmp_path)]
    assert sweep.main([*argv, "--seeds", "2"]) == 0
    first = tmp_path / "k8s-0.yaml"
    capsys.readouterr()
    assert sweep.main([*argv, "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    taken_back = f"kubectl delete --ignore-not-found -f {first} && rm {first}"
    assert "2 runs are left to the Job of k8s-0.yaml" in out
    assert f"{taken_back}\nNothing to submit\n" in out
    # A run that failed is for the next Job; so is what is taken back.
    logdir = tmp_path / "gym_CartPole-v1-1"
    logdir.mkdir()
    Status(logdir, 300, 0).write("failed", "out of memory")
    assert sweep.main([*argv, "--seeds", "3"]) == 0
    text = (tmp_path / "k8s-1.yaml").read_text()
    assert "completions: 2\n" in text
    assert "gym_CartPole-v1-0" not in text
    first.unlink()
    capsys.readouterr()
    assert sweep.main([*argv, "--seeds", "3"]) == 0
    text = (tmp_path / "k8s-2.yaml").read_text()
    assert "gym_CartPole-v1-0" in text


def test_status_says_why_runs_failed(tmp_path, capsys):
    found = record.Record(tmp_path)
    found.runs = {name: record.Entry([]) for name in ("a-0", "b-0", "c-0")}
    found.write()
    (tmp_path / "a-0").mkdir()
    Status(tmp_path / "a-0", 100, 0).write("failed", "out of memory")
    (tmp_path / "b-0.log").write_text("dreamer.train: refused\n")
    assert sweep.main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].endswith("out of memory")
    assert out[2].endswith("dreamer.train: refused")
    assert out[3].split()[:2] == ["c-0", "waiting"]
    assert out[4] == "3 runs: 2 failed, 1 waiting"


@pytest.mark.parametrize("steps", ['"x"', "[1]", "Infinity", "-1", "9" * 400])
def test_status_bears_with_what_no_run_writes(tmp_path, capsys, steps):
    found = record.Record(tmp_path, {"a-0": record.Entry([])})
    found.write()
    (tmp_path / "a-0").mkdir()
    text = f'{{"state": "failed", "time": 1, "steps": {steps}}}'
    (tmp_path / "a-0" / "status.json").write_text(text)
    assert sweep.main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split("\n")[1].startswith("a-0  failed")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "status: expected the folder"),
        (["status", ""], "status: expected the folder"),
        (["run", "", "a"], "run: expected the folder"),
        (["status", "{}/none"], "holds no sweep, expected sweep.json"),
        (["run", "{}"], "run: expected the folder of a sweep and a run"),
        (["run", "{}", "gym_CartPole-v1-9"], "did you mean gym_CartPole-v1-0"),
    ],
)
def test_the_other_commands_refuse_in_one_line(tmp_path, words, message):
    found = record.Record(tmp_path, {"gym_CartPole-v1-0": record.Entry([])})
    found.write()
    argv = [word.format(tmp_path) for word in words]
    line = outcome("dreamer.sweep", sweep.main, argv, tmp_path)
    assert message in line


def fake(behaviour):
    """The command line of the program, with fake runs."""
    code = (
        "from dreamer import sweep; from dreamer.sweeps import grid;"
        " grid.Run.command = property(lambda run:"
        f" ['tests.sweeps.fake_train', {behaviour!r}, run.config.logdir]);"
        " sweep.program()"
    )
    return [sys.executable, "-c", code]


def become(folder, name):
    """`run` in a process of its own; with the command of a fake run."""
    return subprocess.Popen(
        [*fake("waits"), "run", str(folder), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def test_run_becomes_the_run_once(tmp_path):
    """With its process number, so that signals reach it, and exit code."""
    name = "gym_CartPole-v1-0"
    arguments = [*DEBUG, "--run.steps", "10"]
    found = record.Record(tmp_path, {name: record.Entry(arguments)})
    found.write()
    process = become(tmp_path, name)
    try:
        assert process.stdout.readline().startswith(f"{name}: prints to ")
        twin = become(tmp_path, name)
        assert "is going on already" in twin.communicate()[0]
        assert twin.returncode == 75
        while not (tmp_path / name / "waits").exists():
            assert process.poll() is None
        (line,) = (tmp_path / name / "starts").read_text().splitlines()
        assert int(line.split()[0]) == process.pid
        process.terminate()
        assert process.wait() == 75
    finally:
        process.kill()
        process.communicate()
    Status(tmp_path / name, 10, 10).write("done")
    done = become(tmp_path, name)
    assert "is done" in done.communicate()[0]
    assert done.returncode == 0


@pytest.mark.long
def test_a_real_run(tmp_path, monkeypatch):
    """Its settings are those of the command, and it is started once."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    argv = [*DEBUG, "--run.steps", "120", "--seed", "3"]
    with programs_kept(tmp_path / "cache"):
        assert sweep.main([*argv, "--logdir", str(tmp_path)]) == 0
    logdir = tmp_path / "gym_CartPole-v1-3"
    assert "Done: " in output.path_of(logdir).read_text()
    assert len((logdir / "starts.jsonl").read_text().splitlines()) == 1
    assert (logdir / "scores.jsonl").stat().st_size
    config = load(["--configs", str(logdir / "config.yaml")])
    assert (config.run.steps, config.seed) == (120, 3)
    assert standing.look(logdir, 120).state == standing.DONE
