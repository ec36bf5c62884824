"""sweep.json: what is kept of a sweep, and what may not change in it."""

import json
import os

import pytest

from dreamer.options import ConfigError
from dreamer.settings import load, save
from dreamer.sweeps import record
from dreamer.sweeps.grid import expand
from dreamer.sweeps.record import Job, Manifest


def runs(folder, **flags):
    changes = {key.replace("_", "."): x for key, x in flags.items()}
    return expand(["debug"], {"task": "gym_CartPole-v1", **changes}, folder)


def test_what_is_written_is_read(tmp_path):
    found = record.read(tmp_path)
    assert not found.runs
    found.add(runs(tmp_path, seed="0,1"))
    found.runs["gym_CartPole-v1-1"].slot = 3
    found.jobs.append(Job("17", ["gym_CartPole-v1-0"]))
    found.manifests.append(Manifest("k8s-0.yaml", ["gym_CartPole-v1-1"]))
    found.write()
    assert record.read(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def test_another_command_adds_runs(tmp_path):
    found = record.read(tmp_path)
    found.add(runs(tmp_path, seed="0"))
    found.runs["gym_CartPole-v1-0"].slot = 1
    found.add(runs(tmp_path, seed="0,1"))
    assert list(found.runs) == ["gym_CartPole-v1-0", "gym_CartPole-v1-1"]
    assert found.runs["gym_CartPole-v1-0"].slot == 1


def test_runs_of_other_settings_are_refused_before_they_began(tmp_path):
    found = record.read(tmp_path)
    found.add(runs(tmp_path))
    record.check(found, runs(tmp_path, run_steps="77"))  # it may go on longer
    with pytest.raises(ConfigError, match=r"batch_size=5 \(there 4\)"):
        record.check(found, expand(
            ["debug"], {"task": "gym_CartPole-v1", "batch_size": "5"}, tmp_path
        ))  # fmt: skip


def test_and_after(tmp_path):
    (run,) = runs(tmp_path)
    logdir = tmp_path / run.name
    logdir.mkdir()
    other = load([*run.arguments, "--batch_size", "6"])
    save(other, logdir / "config.yaml")
    with pytest.raises(ConfigError, match=r"batch_size=4 \(there 6\)"):
        record.check(record.read(tmp_path), [run])


@pytest.mark.parametrize(
    ("first", "second", "twins"),
    [
        ("1e-4,2e-5", "1e-4", ("-0", "-agent.opt.lr=0.0001-0")),
        ("1e-4", "2e-5,1e-4", ("-agent.opt.lr=0.0001-0", "-0")),
        ("1e-4,4e-5", None, ("-0", "-agent.opt.lr=4e-05-0")),
        ("1e-4,2e-5", "1e-4,2e-5,3e-5", None),
        ("1e-4,2e-5", "3e-5", None),
    ],
)
@pytest.mark.parametrize("began", [False, True])
def test_a_run_has_one_name(tmp_path, first, second, twins, began):
    """Whichever command it is of; also where the first said its default."""
    known = runs(tmp_path, agent_opt_lr=first)
    found = record.Record(tmp_path)
    found.add(known)
    for run in known if began else ():
        (tmp_path / run.name).mkdir()
        save(run.config, tmp_path / run.name / "config.yaml")
        found.runs[run.name].arguments = ["--batch_size", "9"]
    new = runs(tmp_path, **({"agent_opt_lr": second} if second else {}))
    if twins is None:
        record.check(found, new)
        return
    one, other = (f"gym_CartPole-v1{x}" for x in twins)
    with pytest.raises(ConfigError, match=f"^{one}: is the same .* {other},"):
        record.check(found, new)
    found.add(new)  # as sweeps of before have it
    record.check(found, new)


def test_a_run_whose_settings_are_gone_is_no_other(tmp_path):
    arguments = ["--configs", str(tmp_path / "gone.yaml")]
    found = record.Record(tmp_path, {"a-0": record.Entry(arguments)})
    record.check(found, runs(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "runs": {"a": {}}, "jobs": []}',
        '{"format": 1, "runs": {"a": {"arguments": "x"}}, "jobs": []}',
        '{"format": 1, "runs": {"../a": {"arguments": []}}, "jobs": []}',
        '{"format": 1, "runs": {}, "jobs": [{"id": "1", "runs": ["b"]}]}',
        '{"format": 1, "runs": [], "jobs": []}',
        '{"format": 1, "runs": {}, "jobs": [], "manifests": [{"file": "a"}]}',
        '{"format": 1, "runs": {}, "jobs": [], "manifests":'
        ' [{"file": "../a", "runs": []}]}',
        "[" * 100_000,
    ],
)
def test_what_no_sweep_wrote_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ConfigError, match=r"sweep\.json: "):
        record.read(tmp_path)


def test_a_write_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    found = record.read(tmp_path)
    found.write()
    found.add(runs(tmp_path))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        found.write()
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]
    assert not json.loads((tmp_path / "sweep.json").read_text())["runs"]
