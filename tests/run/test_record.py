"""What is known of a start, and that nothing unknown stops it."""

import errno
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import jax
import pytest

import dreamer
from dreamer.run import record as record_module
from dreamer.run.record import describe_start, record

ROOT = Path(__file__).resolve().parents[2]


def lines(logdir):
    text = (logdir / "starts.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_one_line_for_each_start(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    record(tmp_path, 0)
    with (tmp_path / "starts.jsonl").open("a") as file:
        file.write('{"time": "torn')
    record(tmp_path, 700)
    first, second = lines(tmp_path)
    assert (first["policy_steps"], second["policy_steps"]) == (0, 700)
    assert before <= datetime.fromisoformat(first["time"]) <= datetime.now(UTC)
    assert first["dreamer_version"] == dreamer.__version__
    assert first["python_version"] == platform.python_version()
    assert first["working_directory"] == os.getcwd()
    assert first["cpu"]
    assert first["cpu_cores"] == os.cpu_count()
    assert 0.1 < first["ram_gib"] < 1e5
    assert first["jax_backend"] == jax.default_backend()
    assert sum(first["devices"].values()) == jax.device_count()
    for name in ("jax", "numpy", "tensorboardX"):
        version = importlib.metadata.version(name)
        assert first["package_versions"][name] == version


def test_command_is_as_it_was_typed(tmp_path):
    package = tmp_path / "some"
    package.mkdir()
    (package / "start.py").write_text(
        "from dreamer.run.record import describe_start\n"
        "print(describe_start(0)['command'])\n"
    )
    typed = ["-m", "some.start", "--logdir", "a b"]
    done = subprocess.run(
        [sys.executable, *typed],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = f"{sys.executable} -m some.start --logdir 'a b'\n"
    assert done.stdout == expected


def test_no_secrets(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "SLURM_JWT"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("XLA_FLAGS", "--a=1")
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    found = describe_start(0)
    variables = found["environment_variables"]
    assert "secret" not in json.dumps(found)
    assert variables["XLA_FLAGS"] == "--a=1"
    assert variables["JAX_ENABLE_X64"] == "0"
    assert variables["CUDA_VISIBLE_DEVICES"] == "3"
    assert variables["SLURM_JOB_ID"] == "17"


def git(source, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(source), *who, *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    git(source, "init")
    (source / "file").write_text("a")
    git(source, "add", "file")
    git(source, "commit", "-m", "first")
    monkeypatch.setattr(record_module, "SOURCE", source)
    return source


def revision():
    found = describe_start(0)
    return found["git_revision"], found["git_uncommitted_changes"]


def test_an_image_tells_what_it_was_built_from(checkout, monkeypatch):
    monkeypatch.setenv("DREAMER_REVISION", "abc")
    assert revision()[0] == "abc"
    monkeypatch.setenv("DREAMER_REVISION", "")
    assert revision()[0] == git(checkout, "rev-parse", "HEAD")


def test_revision_of_the_checkout(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "logs").write_text("not part of the source")
    assert revision() == (head, False)
    (checkout / "file").write_text("b")
    assert revision() == (head, True)


def test_no_revision(checkout, monkeypatch, capfd):
    # Installed somewhere below a checkout of something else.
    (checkout / "site-packages").mkdir()
    with monkeypatch.context() as context:
        context.setattr(record_module, "SOURCE", checkout / "site-packages")
        assert revision() == (None, None)
    with monkeypatch.context() as context:  # no git
        context.setenv("PATH", "")
        assert revision() == (None, None)
    git(checkout, "update-ref", "-d", "HEAD")  # no commit
    assert revision()[0] is None
    assert capfd.readouterr() == ("", "")


def test_git_that_hangs(checkout, tmp_path, monkeypatch):
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=os.pathsep)
    monkeypatch.setattr(record_module, "SECONDS", 0.05)
    assert revision() == (None, None)


def test_damaged_packages(tmp_path, monkeypatch):
    (tmp_path / "broken-1.0.dist-info").mkdir()
    shadow = tmp_path / "jax-0.0.dist-info"
    shadow.mkdir()
    (shadow / "METADATA").write_text("Name: jax\nVersion: 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    versions = describe_start(0)["package_versions"]
    assert versions["jax"] == "0.0", "what is imported comes first"
    assert "numpy" in versions


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64"
        "  535.104.05  Release Build  (a@b)\nGCC version:  gcc 12.2.0 \n",
    ],
)
def test_nvidia_driver(monkeypatch, text):
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert record_module._nvidia_driver() == "535.104.05"


def test_what_fails_is_null(monkeypatch):
    def fail(*arguments):
        raise RuntimeError

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(record_module, "_cpu", fail)
    found = describe_start(0)
    assert found["devices"] is None
    assert found["device_runtime"] is None
    assert found["cpu"] is None


def test_cannot_be_written(tmp_path):
    with pytest.raises(OSError) as error:
        record(tmp_path / "missing", 0)
    assert error.value.errno == errno.ENOENT
