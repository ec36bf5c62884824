"""The health check: well while a run speaks, unwell when it has stopped."""

import json
import time

import pytest

from dreamer.run import lock
from dreamer.status import FILE, SILENCE, Status


@pytest.fixture
def health(program):
    return program("health")


def write(logdir, silent=0.0, **values):
    logdir.mkdir(exist_ok=True)
    Status(logdir, 100, 7).write("running")
    status = json.loads((logdir / FILE).read_text()) | values
    status["time"] = time.time() - silent
    (logdir / FILE).write_text(json.dumps(status))


@pytest.mark.parametrize(
    ("values", "well"),
    [
        ({}, True),
        ({"silent": SILENCE - 100}, True),
        ({"silent": SILENCE + 1}, False),
        ({"state": "interrupted"}, True),
        ({"state": "done"}, True),
        ({"state": "failed", "error": "out of memory"}, False),
    ],
)
def test_a_run(health, monkeypatch, capsys, tmp_path, values, well):
    write(tmp_path, **values)
    monkeypatch.setattr(health, "logdirs", lambda: [tmp_path, tmp_path])
    assert health.main() == (0 if well else 1)
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{tmp_path}: {values.get('state', 'running')}, 7 of 100" in line
    assert values.get("error", "") in line


def test_no_run_or_one_that_cannot_be_read(
    health, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(health, "logdirs", list)
    assert health.main() == 1
    assert capsys.readouterr().out == "no run has begun\n"
    (tmp_path / FILE).write_text("{")
    monkeypatch.setattr(health, "logdirs", lambda: [tmp_path])
    assert health.main() == 1
    assert "cannot be read" in capsys.readouterr().out


def test_one_of_several_is_unwell(health, monkeypatch, tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", silent=SILENCE + 1)
    found = [tmp_path / "a", tmp_path / "b"]
    monkeypatch.setattr(health, "logdirs", lambda: found)
    assert health.main() == 1


def test_the_logdir_is_found_by_its_lock(health, tmp_path):
    logdir = tmp_path / "x-0"
    with lock.acquire(logdir):
        assert logdir not in health.logdirs()  # nothing to read yet
        write(logdir)
        write(tmp_path / "another")
        found = [x for x in health.logdirs() if x.parent == tmp_path]
        assert found == [logdir]
    assert logdir not in health.logdirs()
