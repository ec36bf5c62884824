"""The script of an array job: what an element does when its run ends."""

import os
import shutil
import subprocess
import time

import pytest

from dreamer.sweeps import slurm


# How the script of an element ends: exit code of the run, state of the
# element, and whether it asks for another go.
@pytest.mark.parametrize(
    ("code", "state", "requeued"),
    [
        (0, "RUNNING", False),
        (1, "RUNNING", False),
        (75, "RUNNING", True),
        (75, "COMPLETING", False),  # cancelled by a person
    ],
)
def test_how_an_element_ends(tmp_path, programs, code, state, requeued):
    programs("squeue", f"echo {state}")
    programs("scontrol", f"echo $@ > {tmp_path}/told")
    ended = subprocess.run(
        ["bash", "-c", script_of(f"sh -c 'exit {code}'")],
        env=os.environ | ELEMENT,
        check=False,
    )
    assert ended.returncode == code
    told = tmp_path / "told"
    assert told.exists() == requeued
    assert not requeued or told.read_text() == "requeue 5_1\n"


ONCE = "[ -e {0} ] || {{ touch {0}; echo 'Socket timed out' >&2; exit 1; }}"


@pytest.mark.parametrize("slow", ["squeue", "scontrol"])
def test_a_controller_that_is_busy_is_asked_again(tmp_path, programs, slow):
    said = {
        "squeue": 'echo "${SQUEUE_STATES-RUNNING}"',
        "scontrol": f"echo $@ > {tmp_path}/told",
    }
    said[slow] = f"{ONCE.format(tmp_path / 'asked')}; {said[slow]}"
    for name, text in said.items():
        programs(name, text)
    ended = subprocess.run(
        ["bash", "-c", script_of("sh -c 'exit 75'")],
        env=os.environ | ELEMENT | {"SQUEUE_STATES": "PENDING"},
        check=False,
    )
    assert ended.returncode == 75
    assert (tmp_path / "told").read_text() == "requeue 5_1\n"


def test_a_site_that_does_not_pass_the_path_on(tmp_path, programs):
    """It is found where it was at the submission; or somebody is told."""
    programs("squeue", "echo RUNNING")
    programs("scontrol", f"echo $@ > {tmp_path}/told")
    few = tmp_path / "few"
    few.mkdir()
    for name in ("sh", "sleep", "timeout"):
        (few / name).symlink_to(shutil.which(name))
    text = script_of("sh -c 'exit 75'", programs=tmp_path / "bin")

    def run(text):
        return subprocess.run(
            ["/bin/bash", "-c", text],
            env=ELEMENT | {"PATH": str(few)},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert run(text).stderr == ""
    assert (tmp_path / "told").read_text() == "requeue 5_1\n"
    text = text.replace(str(tmp_path / "bin"), "/nowhere")
    ended = run(text.replace("SECONDS + 15", "SECONDS"))
    assert "5_1: not requeued" in ended.stderr


def test_a_run_that_does_not_stop_is_ended_and_requeued(tmp_path, programs):
    programs("squeue", "echo RUNNING")
    programs("scontrol", f"echo $@ > {tmp_path}/told")
    inner = f"trap '' TERM; touch {tmp_path}/up; exec sleep 600"
    assert code_when_stopped(inner, tmp_path) == 128 + 9
    assert (tmp_path / "told").read_text() == "requeue 5_1\n"


@pytest.mark.parametrize("handler", ["exit 75", ""])
def test_an_element_passes_the_signal_on(tmp_path, programs, handler):
    """Also to a run so young that it does not know how to save."""
    programs("squeue", "echo RUNNING")
    programs("scontrol", f"echo $@ > {tmp_path}/told")
    trap = f"trap '{handler}' TERM;" if handler else ""
    inner = f"{trap} touch {tmp_path}/up; sleep 60 & wait; exit 0"
    code = code_when_stopped(inner, tmp_path)
    assert code == (75 if handler else 143)
    assert (tmp_path / "told").read_text() == "requeue 5_1\n"


ELEMENT = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}


def code_when_stopped(inner, tmp_path):
    """Exit code of an element whose run makes the file "up" and is stopped."""
    (tmp_path / "run.sh").write_text(inner)
    process = subprocess.Popen(
        ["bash", "-c", script_of(f"bash {tmp_path}/run.sh")],
        env=os.environ | ELEMENT,
    )
    until(lambda: (tmp_path / "up").exists(), 30)
    process.terminate()
    return process.wait(30)


def script_of(command, programs="/nowhere"):
    return slurm.SCRIPT.format(
        options="",
        names="a b",
        command=command,
        programs=programs,
        saving=1,
        platform="",
    )


def until(condition, seconds, pause=0.05):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(pause)
