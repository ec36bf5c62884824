import json
import math
import time

import pytest

from dreamer import status
from dreamer.status import Status


def test_what_is_written_can_be_read(tmp_path):
    writer = Status(tmp_path, steps=100, policy_steps=20)
    writer.write("running", policy_steps=30, score=None)
    found = status.read(tmp_path)
    assert found["state"] == "running"
    assert found["policy_steps"] == 30
    assert (found["began_steps"], found["steps"]) == (20, 100)
    assert 0 <= found["silent"] < 60
    writer.write("failed", "no disk", updates=4)
    found = status.read(tmp_path)
    assert (found["state"], found["error"]) == ("failed", "no disk")
    assert (found["policy_steps"], found["updates"]) == (30, 4)
    assert [x.name for x in tmp_path.iterdir()] == [status.FILE]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_what_json_does_not_have_is_null(tmp_path, score):
    Status(tmp_path, steps=1, policy_steps=0).write("running", score=score)
    text = (tmp_path / status.FILE).read_text()
    assert '"score": null' in text
    Status(tmp_path, steps=1, policy_steps=0).write("running", score=1.5)
    assert status.read(tmp_path)["score"] == 1.5


def test_beats_are_rare(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    writer = Status(tmp_path, steps=100, policy_steps=0)
    for step, seconds, written in [
        (1, 0.0, 1),
        (2, status.BEAT - 0.1, 1),
        (3, 0.2, 3),
    ]:
        now += seconds
        writer.beat(policy_steps=step)
        assert status.read(tmp_path)["policy_steps"] == written


def test_it_beats_while_a_disk_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "BEAT", 0.01)
    writer = Status(tmp_path, steps=100, policy_steps=0)
    writer.write("running")
    end = time.monotonic() + 30
    with writer.beating(policy_steps=7):
        began = status.read(tmp_path)["time"]
        while (found := status.read(tmp_path))["time"] <= began + 0.02:
            assert time.monotonic() < end
    assert (found["state"], found["policy_steps"]) == ("running", 7)
    writer.write("done")
    time.sleep(0.05)
    assert status.read(tmp_path)["state"] == "done"


def test_a_run_outlives_a_folder_that_cannot_be_written(tmp_path):
    writer = Status(tmp_path / "gone", steps=1, policy_steps=0)
    writer.write("done")
    assert status.read(tmp_path / "gone") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"state": "done"}',
        '{"state": "done", "time": NaN}',
        '{"state": "done", "time": 1' + "0" * 400 + "}",
        "[" * 100_000,
    ],
)
def test_damage_reads_as_nothing(tmp_path, content):
    (tmp_path / status.FILE).write_text(content)
    assert status.read(tmp_path) is None


def test_silence_is_counted_from_the_time_written(tmp_path):
    values = {"state": "running", "time": time.time() - 50}
    (tmp_path / status.FILE).write_text(json.dumps(values))
    assert 50 <= status.read(tmp_path)["silent"] < 60
