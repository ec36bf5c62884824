import json
import os

import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.replay import Damaged, Positions, collect_garbage, disk, listed
from tests.replay.slow import (
    BF16,
    FIELDS,
    LATENTS,
    contents,
    fill,
    make_replay,
    random_arrays,
    save,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(disk, "CHUNK", 8)


def names(manifest, kind):
    return set(manifest["files"][kind])


def loaded(directory, manifest, **kwargs):
    replay = make_replay(**kwargs)
    replay.load(directory, json.loads(json.dumps(manifest)))
    return replay


def refresh(replay, env, start, seed=7):
    positions = Positions(np.array([env]), np.array([start]))
    fresh = random_arrays(LATENTS, (1, replay.length), seed)
    replay.write_back(positions, fresh)


def test_second_save_writes_only_the_unfinished_chunk(tmp_path):
    replay = make_replay(envs=2, capacity=100)
    fill(replay, 50)
    first = save(replay, tmp_path)
    assert len(names(first, "fields")) == 2 * 7
    fill(replay, 3, first_seed=50)
    second = save(replay, tmp_path)
    new = names(second, "fields") - names(first, "fields")
    assert {name.rsplit("-", 1)[0] for name in new} == {
        "fields-0-48-53",
        "fields-1-48-53",
    }
    assert len(names(second, "latents") - names(first, "latents")) == 2


def test_a_save_after_nothing_writes_nothing(tmp_path):
    replay = make_replay()
    fill(replay, 19)
    first = save(replay, tmp_path)
    assert save(replay, tmp_path)["files"] == first["files"]


def test_write_back_makes_only_its_own_latents_stale(tmp_path):
    replay = make_replay(envs=2, capacity=100)
    fill(replay, 48)
    first = save(replay, tmp_path)
    refresh(replay, env=1, start=12)  # trained steps 13, 14, 15
    second = save(replay, tmp_path)
    assert second["files"]["fields"] == first["files"]["fields"]
    new = names(second, "latents") - names(first, "latents")
    assert [name.rsplit("-", 1)[0] for name in new] == ["latents-1-8-16"]
    assert save(replay, tmp_path)["files"] == second["files"]
    refresh(replay, env=1, start=13)  # trained steps 14, 15, 16
    third = save(replay, tmp_path)
    assert len(names(third, "latents") - names(second, "latents")) == 2
    assert contents(loaded(tmp_path, third, capacity=100)) == contents(replay)


def test_a_replay_that_need_not_be_exact_saves_latents_once(tmp_path):
    replay = make_replay(envs=1, capacity=100, exact=False)
    fill(replay, 44)
    before = contents(replay)
    first = save(replay, tmp_path)
    refresh(replay, env=0, start=12)  # in a complete chunk
    refresh(replay, env=0, start=39)  # in the last, which is not
    assert contents(replay) != before
    assert save(replay, tmp_path)["files"] == first["files"]
    again = loaded(tmp_path, first, envs=1, capacity=100, exact=False)
    assert contents(again) == before
    # What grows is saved as it is by then.
    fill(replay, 4, first_seed=44)
    second = save(replay, tmp_path)
    new = names(second, "latents") - names(first, "latents")
    assert [name.rsplit("-", 1)[0] for name in new] == ["latents-0-40-48"]
    again = loaded(tmp_path, second, envs=1, capacity=100)
    assert contents(again) != contents(replay)
    refresh(again, env=0, start=12)
    refresh(again, env=0, start=39)
    assert contents(again) == contents(replay)


def test_overwritten_chunks_are_listed_no_more(tmp_path):
    replay = make_replay(envs=1, capacity=20)
    fill(replay, 20)
    first = save(replay, tmp_path)
    fill(replay, 10, first_seed=20)  # steps 10..29: chunks 8, 16, 24
    second = save(replay, tmp_path)
    starts = {name.split("-")[2] for name in names(second, "fields")}
    assert starts == {"8", "16", "24"}
    collect_garbage(tmp_path, listed(second))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == names(second, "fields") | names(second, "latents")
    assert not listed(first) <= left
    assert contents(loaded(tmp_path, second, envs=1)) == contents(replay)


def test_a_continued_run_leaves_the_newer_save_it_forks_from_intact(tmp_path):
    replay = make_replay(capacity=50)
    fill(replay, 21)
    old = save(replay, tmp_path)
    fill(replay, 10, first_seed=21)
    new = save(replay, tmp_path)
    fork = loaded(tmp_path, old, capacity=50)
    fill(fork, 10, first_seed=500)
    forked = save(fork, tmp_path)
    reread = [loaded(tmp_path, m, capacity=50) for m in (new, forked)]
    assert contents(reread[0]) == contents(replay)
    assert contents(reread[1]) == contents(fork)
    assert contents(fork) != contents(replay)
    # Steps up to 16 are common to both, and so are their files.
    assert len(names(new, "fields") & names(forked, "fields")) == 4


def test_another_directory_gets_everything(tmp_path):
    replay = make_replay()
    fill(replay, 19)
    save(replay, tmp_path / "a")
    manifest = save(replay, tmp_path / "b")
    assert contents(loaded(tmp_path / "b", manifest)) == contents(replay)


def test_a_file_that_is_missing_or_short_is_written_again(tmp_path):
    replay = make_replay()
    fill(replay, 19)
    first = save(replay, tmp_path)
    gone, short = sorted(names(first, "fields"))[:2]
    (tmp_path / gone).unlink()
    os.truncate(tmp_path / short, 99)
    manifest = save(replay, tmp_path)
    assert contents(loaded(tmp_path, manifest)) == contents(replay)


# The ninth file is the first of latents, which a write-back made stale.
@pytest.mark.parametrize("failing", [1, 4, 10])
def test_crashed_save_does_no_harm(tmp_path, monkeypatch, failing):
    replay = make_replay(capacity=60)
    fill(replay, 30)
    manifest = save(replay, tmp_path)
    before = contents(replay)
    fill(replay, 20, first_seed=30)
    refresh(replay, env=0, start=2)
    fsync, calls = os.fsync, []

    def full_disk(descriptor):
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save(replay, tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    assert contents(loaded(tmp_path, manifest, capacity=60)) == before
    # The same run saves once there is room, after a clean-up or without.
    collect_garbage(tmp_path, listed(manifest))
    assert contents(loaded(tmp_path, manifest, capacity=60)) == before
    later = save(replay, tmp_path)
    assert contents(loaded(tmp_path, later, capacity=60)) == contents(replay)


def test_leftovers_are_ignored_and_collected(tmp_path):
    replay = make_replay()
    fill(replay, 19)
    manifest = save(replay, tmp_path)
    ours = {path.name for path in tmp_path.iterdir()}
    token = "0" * 32
    orphan = tmp_path / f"fields-0-0-8-{token}.chunk"
    temporary = tmp_path / f"latents-1-0-8-{token}.chunk.tmp"
    foreign = tmp_path / "notes.chunk"
    for path in (orphan, temporary, foreign):
        path.write_bytes(b"half")
    assert contents(loaded(tmp_path, manifest)) == contents(replay)
    collect_garbage(tmp_path, listed(manifest))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ours | {foreign.name}


@pytest.mark.parametrize("kind", ["fields", "latents"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_damage_is_told_in_one_line(tmp_path, kind, damage):
    replay = make_replay()
    fill(replay, 19)
    manifest = save(replay, tmp_path)
    path = tmp_path / sorted(names(manifest, kind))[2]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        keep = {"flip": None, "truncate": -1, "empty": 0}[damage]
        path.write_bytes(content[:keep])
    fresh = make_replay()
    message = {"flip": "checksum", "remove": "cannot read"}
    expected = message.get(damage, "truncated")
    with pytest.raises(Damaged, match=expected) as error:
        fresh.load(tmp_path, manifest)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    # The replay is still empty and knows nothing of those files.
    fill(fresh, 19, first_seed=100)
    again = loaded(tmp_path, save(fresh, tmp_path))
    assert contents(again) == contents(fresh)


def test_an_unlisted_chunk_is_missed(tmp_path):
    replay = make_replay()
    fill(replay, 19)
    manifest = save(replay, tmp_path)
    manifest["files"]["fields"].popitem()
    with pytest.raises(Damaged, match="no fields file is listed for steps"):
        make_replay().load(tmp_path, manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"envs": 1}, "replay envs is 2 in the checkpoint, 1 here"),
        ({"length": 4}, "replay length is 3 in the checkpoint, 4 here"),
        ({"context": 2}, "replay context is 1 in the checkpoint, 2 here"),
        ({"online": False}, "online is True in the checkpoint, False here"),
        (
            {"capacity": 18},
            "replay capacity 36 is less than the 38 steps saved",
        ),
        (
            {"fields": FIELDS | {"image": ((4, 4, 1), np.dtype(np.uint8))}},
            r"field image is uint8\[2, 2, 1\] in the .* uint8\[4, 4, 1\] here",
        ),
        (
            {"fields": FIELDS | {"vector": ((), np.dtype(np.uint8))}},
            r"field vector is none in the checkpoint, uint8\[\] here",
        ),
        (
            {"latents": LATENTS | {"deter": ((5,), np.dtype(np.float32))}},
            r"deter is bfloat16\[5\] in the checkpoint, float32\[5\] here",
        ),
        (
            {"latents": {"deter": ((5,), BF16)}},
            r"latent stoch is uint8\[3\] in the checkpoint, none here",
        ),
    ],
)
def test_a_replay_of_another_make_is_refused(tmp_path, change, message):
    replay = make_replay()
    fill(replay, 19)
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, save(replay, tmp_path), **change)


def test_only_an_empty_replay_loads(tmp_path):
    replay = make_replay()
    fill(replay, 19)
    manifest = save(replay, tmp_path)
    with pytest.raises(ValueError, match="must be empty"):
        replay.load(tmp_path, manifest)


def test_a_larger_replay_never_serves_steps_that_were_gone(tmp_path):
    replay = make_replay(capacity=20)
    fill(replay, 33)
    manifest = save(replay, tmp_path)
    larger = loaded(tmp_path, manifest, capacity=30)
    assert contents(larger) == contents(replay)
    assert len(larger) == len(replay)
    for twin in (larger, replay):
        fill(twin, 5, first_seed=33)
    assert len(larger) == len(replay) + 10
    again = loaded(tmp_path, save(larger, tmp_path), capacity=30)
    assert contents(again) == contents(larger)


def test_empty_replay_saves_and_loads(tmp_path):
    replay = make_replay()
    again = loaded(tmp_path, save(replay, tmp_path))
    assert len(again) == 0
    for twin in (replay, again):
        fill(twin, 19)
        twin._queue.clear()
    assert replay.draw(9).start.tolist() == again.draw(9).start.tolist()
