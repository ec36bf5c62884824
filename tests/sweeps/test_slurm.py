"""The array job: what is submitted, asked and requeued; and a real one."""

import argparse
import errno
import json
import re
import subprocess
import sys
import time

import pytest

from dreamer import status
from dreamer.options import ConfigError
from dreamer.sweeps import record, slurm
from dreamer.sweeps.flags import parse
from dreamer.sweeps.record import Entry, Job
from tests.run.trained import programs_kept
from tests.sweeps import cluster
from tests.sweeps.fake_train import ROOT

PATIENCE = 400  # seconds until the jobs of the real one are over


def flags(*words) -> argparse.Namespace:
    return parse(["--logdir", "x", "--launcher", "slurm", *words])[0]


def until(condition, seconds, pause=0.05):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(pause)


def make_record(folder):
    runs = {name: Entry([]) for name in ("a-0", "b-0", "c-0")}
    return record.Record(folder, runs)


@pytest.mark.parametrize(
    "limit",
    ["0", "4", "3:01", "0:04:00", "1-0", "0-1:00", "0-0:3:1", "UNLIMITED"],
)
def test_limits_that_leave_time_to_train(limit):
    assert flags("--time", limit).time == limit


def test_a_script_says_what_was_asked_for(tmp_path):
    asked = flags(
        *["--partition", "long", "--account", "lab", "--time", "1-00:00:00"],
        *[
            "--gres",
            "gpu:a100:1",
            "--cpus",
            "8",
            "--mem",
            "32G",
            "--concurrent",
            "4",
            "--grace",
            "300",
        ],
        "--sbatch=--qos=high --exclude=n1",
    )
    folder = tmp_path / "my sweep"
    text = slurm.script(folder, 3, ["a-0", "b-0"], asked)
    for line in (
        "--array=0-1%4",
        "--job-name=sweep-my_sweep",
        f'--output="{folder}/slurm-3_%a.out"',
        "--open-mode=append",
        "--signal=B:TERM@300",
        "--requeue",
        "--partition=long",
        "--account=lab",
        "--time=1-00:00:00",
        "--gres=gpu:a100:1",
        "--cpus-per-task=8",
        "--mem=32G",
        "--qos=high --exclude=n1",
    ):
        assert f"#SBATCH {line}\n" in text
    assert "runs=(a-0 b-0)\n" in text
    assert f"dreamer.sweep run '{folder}' ${{runs" in text
    assert "seconds < 270;" in text  # less what the requeue may take
    assert "export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda}\n" in text
    checked = subprocess.run(
        ["bash", "-n"], input=text, text=True, check=False
    )
    assert checked.returncode == 0


def test_what_is_not_asked_for_is_left_to_the_cluster(tmp_path):
    text = slurm.script(tmp_path, 0, ["a-0"], flags())
    words = re.findall(r"#SBATCH --([\w-]+)", text)
    expected = ["job-name", "array", "output", "open-mode", "signal"]
    assert words == [*expected, "requeue"]
    assert "--array=0-0\n" in text
    assert "--signal=B:TERM@120\n" in text
    assert "JAX_PLATFORMS" not in text


@pytest.mark.parametrize("seconds", ["59", "65536"])
def test_how_long_a_run_may_take_to_stop(seconds):
    with pytest.raises(ConfigError, match="a whole number from 60 to 65535"):
        flags("--grace", seconds)


def test_a_folder_with_a_percent_sign(tmp_path):
    """Where sbatch would put the number of the job."""
    text = slurm.script(tmp_path / "90%j", 0, ["a-0"], flags())
    assert f'--output="{tmp_path}/90%%j/slurm-0_%a.out"\n' in text


@pytest.mark.parametrize("name", ["a\\b", "a\nb"])
def test_a_folder_that_sbatch_cannot_name(tmp_path, name):
    with pytest.raises(ConfigError, match="expected a folder without"):
        slurm.check(tmp_path / name)


def test_a_controller_that_does_not_answer_is_told_before_anything(
    tmp_path, programs
):
    programs("sbatch", "exit 1")
    programs("squeue", "echo 'cannot contact the controller' >&2; exit 1")
    with pytest.raises(ConfigError, match="squeue: cannot contact"):
        slurm.check(tmp_path)


def test_a_job_is_recorded(tmp_path, programs):
    programs("sbatch", 'echo "17;cluster"')
    found = make_record(tmp_path)
    job, path = slurm.submit(found, ["b-0", "c-0"], flags())
    assert (job, path.name) == ("17", "slurm-0.sh")
    assert record.read(tmp_path).jobs == [Job("17", ["b-0", "c-0"])]
    assert slurm.submit(found, ["a-0"], flags())[1].name == "slurm-1.sh"


def test_a_refused_job_leaves_nothing(tmp_path, programs):
    programs("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(ConfigError, match="invalid partition"):
        slurm.submit(make_record(tmp_path), ["a-0"], flags())
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.fixture
def full(monkeypatch):
    """The disk is, once a job is submitted."""

    def refuse(self):
        path = str(self.folder / record.FILE)
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(record.Record, "write", refuse)


def test_a_job_that_cannot_be_recorded_is_cancelled(tmp_path, programs, full):
    programs("sbatch", "echo 17")
    programs("scancel", f"echo $* > {tmp_path}/cancelled")
    found = make_record(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        slurm.submit(found, ["a-0"], flags())
    assert (tmp_path / "cancelled").read_text() == "17\n"
    assert not found.jobs
    assert not (tmp_path / "slurm-0.sh").exists()


@pytest.mark.parametrize("text", ["echo 'no controller' >&2; exit 1", None])
def test_or_its_number_is_told(tmp_path, programs, full, monkeypatch, text):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    programs("sbatch", "echo 17")
    if text:
        programs("scancel", text)
    found = make_record(tmp_path)
    why = "no controller" if text else "No such file"
    message = rf"^job 17 is submitted but not recorded.* `scancel 17`.*{why}"
    with pytest.raises(ConfigError, match=message):
        slurm.submit(found, ["a-0"], flags())
    assert found.jobs  # so that the runs stay recorded, which the job needs


def test_the_queue_says_which_runs_are_still_to_come(tmp_path, programs):
    found = make_record(tmp_path)
    assert slurm.queued(found) == set()  # and asks nobody
    found.jobs = [Job("7", ["a-0", "b-0"]), Job("71", ["c-0"])]
    programs("squeue", "echo 7_1; echo 171_0; echo 9")
    assert slurm.queued(found) == {"b-0"}


def test_a_queue_that_does_not_answer_is_no_empty_one(tmp_path, programs):
    found = make_record(tmp_path)
    found.jobs = [Job("7", ["a-0"])]
    programs("squeue", "echo 'cannot contact the controller' >&2; exit 1")
    with pytest.raises(ConfigError, match="squeue: cannot contact"):
        slurm.queued(found)


def test_what_a_person_sees_of_the_queue_is_not_what_a_sweep_sees(
    tmp_path, programs, monkeypatch
):
    found = make_record(tmp_path)
    found.jobs = [Job("7", ["a-0"])]
    for name in ("STATES", "PARTITION", "USERS"):
        monkeypatch.setenv(f"SQUEUE_{name}", "none")
    programs("squeue", '[ "$(env | grep -c ^SQUEUE_)" = 0 ] && echo 7_0')
    assert slurm.queued(found) == {"a-0"}


def test_variables_do_not_replace_what_a_script_says(
    tmp_path, programs, monkeypatch
):
    for name in ("SIGNAL", "NO_REQUEUE", "PARTITION", "ACCOUNT", "WAIT"):
        monkeypatch.setenv(f"SBATCH_{name}", "mine")
    programs("sbatch", f"env | grep ^SBATCH_ | sort > {tmp_path}/env; echo 1")
    slurm.submit(make_record(tmp_path), ["a-0"], flags("--partition", "long"))
    assert (tmp_path / "env").read_text() == "SBATCH_ACCOUNT=mine\n"


@pytest.mark.long
@pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing() or "-")
def test_a_real_slurm_requeues_what_it_kills(tmp_path):
    """Two runs; one is told to stop, one is submitted twice; both finish."""
    folder = tmp_path / "sweep"
    names = ["gym_CartPole-v1-0", "gym_CartPole-v1-1"]
    words = "--configs debug --task gym_CartPole-v1 --seeds 2"
    # Long enough to be seen acting, which takes a heartbeat, and stopped.
    words += " --run.steps 30000 --run.train_ratio 1 --launcher slurm"
    with programs_kept(tmp_path / "cache"), cluster.slurm() as env:

        def sweep(*arguments):
            done = subprocess.run(
                [sys.executable, "-m", "dreamer.sweep", *map(str, arguments)],
                env={**env, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        def counts():
            return sweep("status", folder).splitlines()[-1]

        def acts(name):
            values = status.read(folder / name) or {}
            return values.get("policy_steps", 0) > 50

        assert "job 1, 2 runs" in sweep(*words.split(), "--logdir", folder)
        again = sweep(*words.split(), "--logdir", folder)
        assert again.endswith("Nothing to submit\n")
        until(lambda: acts(names[0]), PATIENCE)
        stop = ["scancel", "--signal=TERM", "--batch", "1_0"]
        subprocess.run(stop, env=env, check=True)
        until(lambda: "queued" in counts(), PATIENCE, pause=2)
        again = sweep(*words.split(), "--logdir", folder)
        assert again.endswith("Nothing to submit\n")
        until(lambda: counts() == "2 runs: 2 done", PATIENCE, pause=2)
    starts = [
        (folder / name / "starts.jsonl").read_text().splitlines()
        for name in names
    ]
    assert [len(lines) for lines in starts] == [2, 1]
    for name in names:
        frames = [
            json.loads(line)["step"]
            for line in (folder / name / "scores.jsonl").open()
        ]
        assert frames == sorted(set(frames))
        assert len(frames) > 10
