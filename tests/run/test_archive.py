"""A checkpoint from a stranger is restored or refused in one line."""

import json
import random

import numpy as np
import pytest

from dreamer.replay import disk
from dreamer.run import archive
from dreamer.run.checkpoint import Checkpoints
from tests.run import tiny
from tests.run.saved import (
    contents,
    refused,
    save,
    state,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(disk, "CHUNK", 8)


def forge(logdir, change):
    """Changes a checkpoint's meta, and its checksum with it."""
    path = logdir / "ckpt" / "10" / "meta.json"
    meta = json.loads(path.read_text())["meta"]
    change(meta)
    path.write_bytes(archive._seal(json.dumps(meta).encode()))


def leaves(value, path=()):
    """Paths of everything in a JSON value."""
    yield path
    keys = ()
    if isinstance(value, dict):
        keys = value
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield from leaves(value[key], (*path, key))


EVIL = (
    *(None, True, 0, 1, -1, 7, 2**31, 2**63, -(2**64), 10**4000, 1.5),
    *(float("nan"), float("inf"), "", "../../x", "/etc/passwd", "a\nb\x1b[2J"),
    *("object", "O", "|V8", "float64", [], {}, [[]], [1, 2, 3], {"a": 1}),
    *([["weight", "float32", [2**62]]], [["weight", "float32", [-3]]]),
    [["weight", "float32", [0, 2**40, 2**40]]],
)


def mutate(meta, rng):
    """Changes a few things somewhere in a JSON value."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        *path, last = rng.choice([p for p in leaves(meta) if p])
        at = meta
        for key in path:
            at = at[key]
        kind = rng.randrange(5)
        if kind == 0:
            del at[last]
        elif kind == 1 and isinstance(at, dict):
            at[rng.choice([x for x in EVIL if type(x) is str])] = at.pop(last)
        elif kind == 2 and isinstance(at, list):
            at.append(at[last])
        else:
            at[last] = rng.choice(EVIL)


@pytest.mark.parametrize("seed", range(5))
def test_mutated_checkpoints_are_refused_or_restored(tmp_path, seed):
    rng = random.Random(seed)
    logdir = tmp_path / "run"
    save(logdir, 10)
    path = logdir / "ckpt" / "10" / "meta.json"
    whole, outcomes = path.read_bytes(), []
    for _ in range(80):
        path.write_bytes(whole)
        forge(logdir, lambda meta: mutate(meta, rng))
        before = contents(tmp_path)
        outcomes.append(usable(logdir))
        assert contents(tmp_path) == before
    assert 0.02 < np.mean(outcomes) < 0.5
    save(logdir, 20)  # whatever the older one holds, it stops no run
    assert set(tmp_path.iterdir()) == {logdir}


def usable(logdir):
    """Whether it was restored; then a run could go on."""
    checkpoints, replay = Checkpoints(logdir), tiny.make_replay()
    try:
        checkpoints.restore(state(0.0), replay)
    except ValueError as error:
        line = str(error)
        restored = False
    else:
        line = "".join(checkpoints.reports)
        restored = True
    checkpoints.close()
    assert line.isprintable()
    assert len(line) < 1000
    assert restored or len(replay) == 0
    for step in tiny.steps(30, 21):
        replay.add(step)
        if replay.windows:
            replay.gather(replay.draw(4))
    return restored


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"format":' + b"9" * 5000 + b"}",
        b"\xff\xfe{}",
        b'{"format": 2}',
        b'{"format": true, "counters": {}, "replay": {}, "files": {}}',
    ],
)
@pytest.mark.parametrize("sealed", [False, True])
def test_strange_meta_files_are_refused(tmp_path, content, sealed):
    save(tmp_path, 10)
    path = tmp_path / "ckpt" / "10" / "meta.json"
    path.write_bytes(archive._seal(content) if sealed else content)
    refused(tmp_path, r"10/meta\.json: damaged")


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/passwd",
        "../replay/fields-0-0-8-{}.chunk",
        "fields-0-0-8-{}.chunk/../x",
        "fields-0-0-8-{}.chunk\n",
        "latents-0-0-8-{}.chunk",
        "fields-0-8-8-{}.chunk",
        "fields-0-8-0-{}.chunk",
        "fields-0-0-9-{}.chunk",
        "fields-0-0-99999999999999-{}.chunk",
        "fields--1-0-8-{}.chunk",
        "fields-٠-0-8-{}.chunk",
    ],
)
def test_names_that_no_replay_gives_are_refused(tmp_path, name):
    save(tmp_path, 10)
    name = name.format("0" * 32)

    def change(meta):
        files = meta["replay"]["files"]["fields"]
        files[name] = files.pop(next(iter(files)))

    forge(tmp_path, change)
    refused(tmp_path, "'.*' (is not a|names)")


@pytest.mark.parametrize("owner", ["../x", "/etc/passwd", "x/y", "", "X"])
def test_owners_cannot_leave_the_directory(tmp_path, owner):
    save(tmp_path, 10)

    def change(meta):
        meta["files"][owner] = meta["files"].pop("learner")

    forge(tmp_path, change)
    refused(tmp_path, "is no file of it")


def test_a_part_of_the_state(tmp_path):
    save(tmp_path, 10, value=3.0)
    path = tmp_path / "ckpt" / "10"
    (path / "learner.arrays").unlink()  # not needed
    meta = archive.read_meta(path)
    like = {"updates": np.zeros((), np.int32)}
    assert archive.read_part(path, meta, like) == {"updates": 3}
    like = {"weight": np.zeros(4, np.float32)}
    with pytest.raises(ValueError, match=r"'weight' is float32\[3\] in it"):
        archive.read_part(path, meta, like)
    with pytest.raises(ValueError, match="'params' is none in it"):
        archive.read_part(path, meta, {"params": np.zeros(1)})
