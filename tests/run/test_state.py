"""A run that waits for its disk, from its first step to its end."""

import errno
import itertools
import json
import os
import signal
import time

import pytest

from dreamer import status, train
from dreamer.run import patience
from dreamer.run.append import AppendedFile
from dreamer.run.learner import Learner
from dreamer.run.record import FILE as STARTS
from dreamer.run.shelf import Shelf, saved_steps
from dreamer.settings import load
from dreamer.train_ratio import schedule

RUN = ["--configs", "debug", "--task", "gym_CartPole-v1", "--run.steps", "60"]
RUN += ["--run.save_every", "1e-9", "--run.envs", "1"]


def rows(logdir):
    lines = (logdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_every_row_before_a_checkpoint_is_on_disk(
    tmp_path, monkeypatch, capsys
):
    """Though many attempts to write rows fail."""
    tries, kept = itertools.count(), {}
    write, prepare = AppendedFile._write, Shelf.prepare

    def now_and_then(file):
        if file._path.name != STARTS and next(tries) % 8 < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file)

    def note(shelf, folder):
        steps = [row["step"] for row in rows(tmp_path)]
        kept.setdefault(int(folder.stem), steps)
        prepare(shelf, folder)

    monkeypatch.setattr(AppendedFile, "_write", now_and_then)
    monkeypatch.setattr(Shelf, "prepare", note)
    monkeypatch.setattr(patience, "RETRY", 0.0)
    monkeypatch.setattr("dreamer.run.state.time.sleep", lambda seconds: None)
    assert train.main([*RUN, "--logdir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "cannot be written: No space left on device" in out
    assert "can be written again" in out
    assert max(kept) == max(saved_steps(tmp_path / "ckpt")) == 60
    steps = [row["step"] for row in rows(tmp_path)]
    for policy_steps, there in kept.items():
        assert there == [step for step in steps if step <= policy_steps]
        assert policy_steps in there


@pytest.mark.slow
def test_a_run_that_waits_for_its_disk_is_not_silent(tmp_path, monkeypatch):
    prepare = Shelf.prepare

    def slow(shelf, folder):
        end = time.monotonic() + 30
        then = status.read(tmp_path)["time"]
        while status.read(tmp_path)["time"] <= then + 0.1:
            assert time.monotonic() < end
            time.sleep(0.01)
        prepare(shelf, folder)

    monkeypatch.setattr(status, "BEAT", 0.05)
    monkeypatch.setattr(Shelf, "prepare", slow)
    argv = [*RUN, "--logdir", str(tmp_path)]
    assert train.main(argv) == 0
    assert status.read(tmp_path)["state"] == "done"


@pytest.mark.slow
def test_updates_that_the_last_step_still_owes_have_a_row(
    tmp_path, monkeypatch
):
    argv = [*RUN, "--run.train_ratio", "128", "--logdir", str(tmp_path)]
    plan = schedule(load(argv))
    planned = plan.total_updates
    assert plan.updates_per_step > 2
    update = Learner.update

    def interrupted(learner):
        update(learner)
        if learner.updates == planned - 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Learner, "update", interrupted)
    assert train.main(argv) == train.INTERRUPTED
    before = [row for row in rows(tmp_path) if "updates" in row]
    assert before[-1]["policy_steps"] == 60
    assert before[-1]["updates"] == planned - 2
    assert train.main(argv) == 0
    after = [row for row in rows(tmp_path) if "updates" in row]
    assert after[:-1] == before
    assert after[-1]["updates"] == planned
    assert after[-1]["train/opt/updates"] == planned
    assert after[-1]["policy_steps"] == 60
