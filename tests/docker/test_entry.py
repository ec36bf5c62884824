"""The container's first words: where a run goes, and one line if it cannot."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer import settings, train

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docker" / "entry.py"
WORDS = ["--configs", "atari100k", "--task", "atari100k_pong"]


@pytest.fixture
def entry(program, monkeypatch, tmp_path):
    module = program("entry")
    monkeypatch.setattr(module, "VOLUME", tmp_path)
    monkeypatch.setattr(module, "_mounted", lambda path: True)
    return module


def start(*words, **environ):
    return subprocess.Popen(
        [sys.executable, "-P", SCRIPT, *words],
        env={"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_same_command_has_the_same_folder(entry, tmp_path):
    words = entry.arguments([*WORDS, "--seed", "3"])
    found = settings.load(words)
    assert found.logdir == f"{tmp_path}/atari100k_pong-3"
    assert (
        settings.load(entry.arguments([])).logdir == f"{tmp_path}/atari_pong-0"
    )


@pytest.mark.parametrize(
    "more", [["--logdir", "mine"], ["--logdir=mine"], ["--help"], ["-h"]]
)
def test_a_logdir_that_is_given_stays(entry, more, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)  # not asked
    assert entry.arguments([*WORDS, *more]) == [*WORDS, *more]


def test_a_folder_that_cannot_be_written_is_one_line(
    entry, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(os, "access", lambda *args: False)  # as root may
    with pytest.raises(SystemExit) as error:
        entry.arguments(WORDS)
    assert error.value.code == entry.REFUSED == train.REFUSED
    out, line = capsys.readouterr()
    assert (out, line.count("\n")) == ("", 1)
    assert f"{tmp_path} is not writable for user {os.geteuid()}:" in line
    assert '--user "$(id -u):$(id -g)"' in line


def test_a_container_without_a_volume_says_what_that_means(
    entry, monkeypatch, capsys
):
    assert "--logdir" in entry.arguments(WORDS)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(entry, "_mounted", lambda path: False)
    assert "--logdir" in entry.arguments(WORDS)
    assert "lost with the container" in capsys.readouterr().err


def test_mounts_are_seen(program, tmp_path):
    # Not of the fixture, which replaces it.
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    assert program("entry")._mounted(Path(lines[-1].split()[4]))
    assert not program("entry")._mounted(tmp_path)


def test_caches_are_at_home_or_else_somewhere(entry, monkeypatch, tmp_path):
    names = ("JAX_COMPILATION_CACHE_DIR", "MPLCONFIGDIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in names:  # a way to have them taken back
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    entry.keep_caches()
    assert not {*names} & os.environ.keys()
    monkeypatch.setattr(os, "access", lambda *args: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    entry.keep_caches()
    assert all(os.environ[x].startswith(str(tmp_path)) for x in names)
    monkeypatch.setenv(names[0], "mine")
    entry.keep_caches()
    assert os.environ[names[0]] == "mine"


def test_other_words_are_a_command():
    code = "import os, sys; print(os.getpid(), *sys.argv[1:]); sys.exit(7)"
    process = start("python3", "-c", code, "--logdir", "x y")
    out, err = process.communicate()
    assert (process.returncode, err) == (7, "")
    assert out == f"{process.pid} --logdir x y\n"
    process = start("no\nsuch", "--configs")
    out, err = process.communicate()
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert "No such file" in err


FAKE = """
import sys, time
def program():
    print(*sys.argv[1:], flush=True)
    sys.exit(75)
if "slow" in sys.argv:
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "dreamer").mkdir()
    (tmp_path / "dreamer" / "__init__.py").touch()
    (tmp_path / "dreamer" / "train.py").write_text(FAKE)
    return {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}


def test_training_has_the_flags_and_its_exit_code_is_the_containers(fake):
    process = start("--seed", "1", "--logdir", "x", **fake)
    assert process.communicate() == ("--seed 1 --logdir x\n", "")
    assert process.returncode == 75


def test_a_stop_while_it_starts_is_heard(fake):
    process = start("--logdir", "x", "slow", **fake)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == train.INTERRUPTED
    assert err == "dreamer: stopped before the run began\n"
