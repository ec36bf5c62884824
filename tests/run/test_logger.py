"""The logger: the authors' form, killed and resumed runs, every output."""

import json
import math
import os
import struct
import sys
import types

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from dreamer.config import Config, ConfigError
from dreamer.run.logger import Logger


def make(logdir, outputs=("jsonl",)):
    return Logger(logdir, Config(), outputs)


def rows(path):
    def reject(name):
        raise AssertionError(f"{name} is not JSON")

    lines = path.read_text().splitlines()
    return [json.loads(line, parse_constant=reject) for line in lines]


def events(logdir):
    """Reads TensorBoard's record files: length, crc, data, crc."""
    found = []
    for path in sorted(logdir.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def scalars(logdir):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(logdir)
        for value in event.summary.value
    ]


def test_form_of_the_files(tmp_path):
    logger = make(tmp_path / "new" / "run")
    logger.scalars(400, {"train/loss/dyn": np.float32(1.5), "fps/policy": 7})
    logger.episode(800, score=-21.0, length=764)
    logger.scalars(900, {})
    logger.close()
    assert (tmp_path / "new/run/metrics.jsonl").read_text() == (
        '{"step": 400, "train/loss/dyn": 1.5, "fps/policy": 7.0}\n'
        '{"step": 800, "episode/score": -21.0, "episode/length": 764.0}\n'
    )
    assert (tmp_path / "new/run/scores.jsonl").read_text() == (
        '{"step": 800, "episode/score": -21.0}\n'
    )


def test_lines_are_there_at_once(tmp_path):
    logger = make(tmp_path)
    logger.scalars(4, {"a": 1.0})
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 4, "a": 1.0}]
    logger.close()


def test_each_line_is_one_write(tmp_path, monkeypatch):
    writes = []
    logger = make(tmp_path)
    file = types.SimpleNamespace(
        write=lambda data: writes.append(data) or len(data), close=list
    )
    monkeypatch.setattr(logger._sinks[0], "_file", file)
    logger.scalars(4, {f"metric{i}": i / 3 for i in range(5000)})
    assert len(writes) == 1
    assert writes[0].endswith(b"}\n")
    logger.close()


def test_a_full_disk_is_not_passed_over(tmp_path, monkeypatch):
    logger = make(tmp_path)
    file = types.SimpleNamespace(write=lambda data: 3, close=list)
    monkeypatch.setattr(logger._sinks[0], "_file", file)
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        logger.scalars(4, {"a": 1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_is_null(tmp_path, value):
    logger = make(tmp_path)
    logger.scalars(4, {"a": value, "b": 2.0})
    logger.close()
    expected = [{"step": 4, "a": None, "b": 2.0}]
    assert rows(tmp_path / "metrics.jsonl") == expected


def test_continues_files_and_removes_a_torn_line(tmp_path):
    first = make(tmp_path)
    first.episode(4, 1.0, 10)
    first.close()
    for name in ("metrics.jsonl", "scores.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"step": 8, "episode/sc')
    second = make(tmp_path)
    second.episode(12, 2.0, 10)
    second.close()
    for name in ("metrics.jsonl", "scores.jsonl"):
        assert [row["step"] for row in rows(tmp_path / name)] == [4, 12]


def test_a_file_that_is_one_torn_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 8')
    make(tmp_path).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_truncate_after(tmp_path):
    first = make(tmp_path)
    for frames in (4, 8, 12):
        first.episode(frames, float(frames), 10)
    first.close()
    second = make(tmp_path)
    second.truncate_after(8)
    second.episode(12, 99.0, 10)
    second.close()
    assert rows(tmp_path / "scores.jsonl") == [
        {"step": 4, "episode/score": 4.0},
        {"step": 8, "episode/score": 8.0},
        {"step": 12, "episode/score": 99.0},
    ]
    steps = [row["step"] for row in rows(tmp_path / "metrics.jsonl")]
    assert steps == [4, 8, 12]
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl", "scores.jsonl"]


def test_tensorboard(tmp_path):
    logger = make(tmp_path, ("tensorboard",))
    logger.scalars(400, {"train/loss/dyn": 1.5})
    logger.episode(800, 3.0, 10)
    logger.flush()
    logger.close()
    assert scalars(tmp_path) == [
        (400, "train/loss/dyn", 1.5),
        (800, "episode/score", 3.0),
        (800, "episode/length", 10.0),
    ]
    assert not (tmp_path / "metrics.jsonl").exists()
    assert len(rows(tmp_path / "scores.jsonl")) == 1


def test_tensorboard_hides_what_a_resumed_run_logs_anew(tmp_path):
    logger = make(tmp_path, ("tensorboard",))
    logger.truncate_after(400)
    logger.scalars(404, {"a": 1.0})
    logger.close()
    starts = [
        event.step
        for event in events(tmp_path)
        if event.session_log.status == SessionLog.START
    ]
    assert starts == [401]


def test_wandb_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb") as error:
        make(tmp_path / "run", ("jsonl", "wandb"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_wandb_continues_its_run(tmp_path, monkeypatch):
    started, logged = [], []

    def init(**options):
        started.append(options)
        return types.SimpleNamespace(
            log=lambda row, step: logged.append((step, row)), finish=list
        )

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for frames in (4, 8):
        logger = make(tmp_path, ("wandb",))
        logger.scalars(frames, {"a": math.nan if frames == 4 else 1.0})
        logger.close()
    assert started[0] == started[1]
    assert started[0]["resume"] == "allow"
    assert started[0]["config"]["task"] == Config().task
    assert math.isnan(logged[0][1]["a"])
    assert logged[1] == (8, {"a": 1.0})
