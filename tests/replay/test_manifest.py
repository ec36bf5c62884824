import json

import pytest

from dreamer.options import ConfigError
from dreamer.replay import Damaged
from tests.replay.slow import fill, make_replay, save

DELETED = object()


@pytest.fixture
def saved(tmp_path):
    replay = make_replay()  # 2 environments, 20 steps each, windows of 4
    fill(replay, 33)
    return tmp_path, json.loads(json.dumps(save(replay, tmp_path)))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *[(key, DELETED, "has no") for key in ("time", "queue", "rng")],
        ("files", DELETED, "has no files"),
        *[("time", x, "not int") for x in (None, True, 33.0, "33", [33])],
        ("time", -1, "time is -1, not of 0 to 4"),
        ("time", 10**30, "not of 0 to 4"),
        ("oldest", 34, "oldest is 34, not of 0 to 33"),
        ("queue", {}, "not list"),
        ("queue", [[0]], "has no 1"),
        ("queue", [0], "has no 0"),
        ("queue", [[2, 13]], "0 is 2, not of 0 to 1"),
        ("queue", [[-1, 13]], "0 is -1, not of 0 to 1"),
        ("queue", [[0, 12]], "1 is 12, not of 13 to 29"),
        ("queue", [[0, 30]], "1 is 30, not of 13 to 29"),
        ("rng", [], "not dict"),
        ("rng", {}, "rng is not the state of a PCG64"),
        ("files", [], "not dict"),
        ("files", {"fields": {}}, "has no latents"),
        ("files", {"fields": {"x": 1}, "latents": {}}, "'x' is not a file"),
        ("files", {"fields": {}, "latents": {}}, "file is listed for steps"),
    ],
)
def test_a_manifest_that_no_replay_gives(saved, key, value, message):
    directory, manifest = saved
    if value is DELETED:
        del manifest[key]
    else:
        manifest[key] = value
    check_refused(directory, manifest, message)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("state", x) for x in (-1, 2**128, 1.5, "1", None, [], 10**4000)],
        *[("inc", x) for x in (-1, 2**128, None)],
    ],
)
def test_the_state_of_a_generator(saved, key, value):
    directory, manifest = saved
    manifest["rng"]["state"][key] = value
    check_refused(directory, manifest, "rng is not the state of a PCG64")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bit_generator", "MT19937"),
        ("has_uint32", 10**30),
        ("uinteger", 2**32),
        ("uinteger", "x"),
        ("state", None),
    ],
)
def test_the_rest_of_a_generator(saved, key, value):
    directory, manifest = saved
    manifest["rng"][key] = value
    check_refused(directory, manifest, "rng is not the state of a PCG64")


def check_refused(directory, manifest, message):
    replay = make_replay()
    with pytest.raises(Damaged, match=message) as error:
        replay.load(directory, manifest)
    assert str(error.value).isprintable()
    assert len(replay) == 0
    assert not replay._queue
    fill(replay, 5)


def test_a_queue_out_of_order(saved):
    directory, manifest = saved
    assert len(manifest["queue"]) > 2
    manifest["queue"].reverse()
    check_refused(directory, manifest, "queue is not in the order of time")


def test_files_of_too_many_environments(saved):
    directory, manifest = saved
    files = manifest["files"]["latents"]
    files[f"latents-2-0-8-{'0' * 32}.chunk"] = 0
    check_refused(directory, manifest, "more than 2 environments")


def test_files_of_steps_that_are_still_to_come(saved):
    directory, manifest = saved
    files = manifest["files"]["latents"]
    files[f"latents-1-1024-2048-{'0' * 32}.chunk"] = 0
    check_refused(directory, manifest, "files of steps after 33")


def test_a_strange_value_is_shown_in_one_short_line(saved):
    directory, manifest = saved
    manifest["field a\n\x1b[2J"] = "x" * 1000
    manifest["envs"] = "\n" * 1000
    with pytest.raises(ConfigError, match="replay envs is") as error:
        make_replay().load(directory, manifest)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200
    for value in (None, [], 3, "x"):
        with pytest.raises(Damaged, match="is not dict"):
            make_replay().load(directory, value)
