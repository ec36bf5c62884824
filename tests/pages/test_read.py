"""Reading a logdir: what is found, and what is left out and said."""

import json
import random

import pytest

from dreamer.options import ConfigError
from dreamer.pages.evaluation import videos
from dreamer.pages.page import page
from dreamer.pages.read import read
from tests.pages import logdirs


def test_all_of_a_run_is_found(finished):
    found = read(finished)
    assert found.config.seed == 3
    assert found.presets == ("atari100k", "debug")
    assert found.changed == {"run.steps": (300, 100), "seed": (0, 3)}
    assert [x["policy_steps"] for x in found.starts] == [0, 50]
    assert found.last("updates") == 30
    assert list(found.scores) == [n - 21 for n in range(1, 21)]
    assert found.frames[-1] == logdirs.FRAMES
    (evaluation,) = found.evaluations
    assert list(evaluation.scores) == [1, -2, 4]
    assert videos(evaluation) == {
        finished / "videos" / "eval-100-sample-000.mp4": 1
    }
    folder = finished / "videos"
    assert found.dreams == {
        folder / "open_loop-000000000400.mp4": 400,
        folder / "imagined-000000000400.mp4": 400,
    }
    assert found.older == 1
    (checkpoint,) = found.checkpoints
    assert (checkpoint.policy_steps, checkpoint.bytes) == (100, 2_500_000)
    assert found.nonfinite == ["update-9.npz"]
    assert found.notes == []


def test_numbers_that_are_not_finite_are_left_out(finished):
    frames, values = read(finished).series("train/loss/policy")
    assert list(frames) == [40 * n for n in range(1, 11) if n != 2]
    assert values[-1] == -5


def test_broken_lines_are_counted(run):
    for name in ("metrics.jsonl", "scores.jsonl", "starts.jsonl"):
        with (run / name).open("ab") as file:
            file.write(b'\xff\xfe\n[1]\n{"step": 1')
    with (run / "metrics.jsonl").open("a") as file:
        file.write('\n\n{"step": NaN}\n{"step": "x"}\n{"step": -1}\n{}\n')
    found = read(run)
    assert len(found.metrics) == 10
    assert len(found.scores) == 20
    assert len(found.starts) == 2
    assert found.notes == [
        "starts.jsonl: 3 broken lines left out.",
        "metrics.jsonl: 7 broken lines left out.",
        "scores.jsonl: 3 broken lines left out.",
    ]


def test_a_file_of_broken_lines_is_said(run):
    (run / "scores.jsonl").write_text("x\n")
    (run / "eval-200-sample.json").write_text('{"episodes": [{}]}')
    found = read(run)
    assert len(found.scores) == 0
    assert [x.path.name for x in found.evaluations] == ["eval-100-sample.json"]
    first, second = found.notes
    assert first.startswith("scores.jsonl: expected lines as")
    assert second == "eval-200-sample.json: left out, as it cannot be read."


def test_a_run_that_has_just_begun(tmp_path):
    found = read(logdirs.settings(tmp_path))
    assert found.presets == ()
    # Without a command, what differs from the defaults.
    assert found.changed["task"] == ("atari_pong", "atari100k_pong")
    assert not found.metrics
    assert not found.checkpoints
    assert found.notes == []
    assert "No episode has ended yet" in page(found)


def test_settings_of_another_version(run):
    with (run / "config.yaml").open("a") as file:
        file.write("gone: 1\n")
    assert read(run).notes == [
        "config.yaml: settings that this version does not have: gone."
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("task: [", "config.yaml, line 1"),
        ("task: atari_pongg", "did you mean atari_pong?"),
        ("run.envs: many", "config.yaml: run.envs=many: expected a whole"),
        ("- 1", "expected 'key: value' lines"),
        ("\0", "expected YAML text"),
    ],
)
def test_settings_that_cannot_be_read(tmp_path, content, words):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml") as error:
        read(tmp_path)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("command", "presets"),
    [
        ("p --configs=quick --seed 1", ("quick",)),
        ("p --seed 1 --configs atari100k size1m", ("atari100k", "size1m")),
        ("p --configs quick other.yaml", ()),
        ("p --seed 1", ()),
        ("p 'no end", ()),
        (None, ()),
        ([1], ()),
    ],
)
def test_presets_of_the_command(run, command, presets):
    logdirs.lines(run / "starts.jsonl", [{"command": command}])
    assert read(run).presets == presets


@pytest.mark.parametrize(
    "video",
    ["videos/../secret.mp4", "secret.mp4", "videos/none.mp4", "", 3, None],
)
def test_videos_come_from_their_folder_alone(run, video):
    (run / "secret.mp4").write_bytes(b"x")
    path = run / "eval-100-sample.json"
    content = json.loads(path.read_text())
    content["episodes"][0]["video"] = video
    path.write_text(json.dumps(content))
    assert videos(read(run).evaluations[0]) == {}


def test_evaluations_are_in_the_order_of_checkpoints(run):
    for steps in (1000, 90):
        path = run / f"eval-{steps}-sample.json"
        logdirs.evaluation(path, [0.0], steps)
    names = [x.about["checkpoint"] for x in read(run).evaluations]
    assert names == [90, 100, 1000]


FILES = (
    "config.yaml",
    "starts.jsonl",
    "metrics.jsonl",
    "scores.jsonl",
    "eval-100-sample.json",
)
ODD = (b"\0", b"\xff", b"{", b'"', b"[", b"1e999", b"null", b"-", b"<", b"\n")


@pytest.mark.parametrize("name", FILES)
def test_mutated_files_make_a_page_or_one_line(run, name):
    rng = random.Random(name)
    path = run / name
    whole = path.read_bytes()
    for _ in range(12):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            start = rng.randrange(len(content))
            end = start + rng.choice((0, 1, 1, 20))
            content[start:end] = rng.choice(ODD)
        path.write_bytes(content)
        refusal = made(run)
        assert refusal.isprintable()
        assert not refusal or name == "config.yaml"


def made(folder):
    """Why there is no page, or nothing."""
    try:
        text = page(read(folder))
    except ValueError as error:
        return str(error)
    return "" if text.endswith("</html>\n") else "it has no end"


VALUES = (None, True, -1, 1e308, 10**400, "x", [], {}, [1, [2]], {"a": {}})


@pytest.mark.parametrize("value", VALUES)
def test_values_of_any_kind_make_a_page(run, value):
    start = dict.fromkeys(logdirs.START, value)
    logdirs.lines(run / "starts.jsonl", [start, {}])
    rows = logdirs.metrics(3)
    odd = [{**dict.fromkeys(x, value), "step": x["step"]} for x in rows]
    logdirs.lines(run / "metrics.jsonl", rows[:5] + odd[5:])
    path = run / "eval-100-sample.json"
    content = dict.fromkeys(json.loads(path.read_text()), value)
    content["episodes"] = [{"score": 1.0, "video": value}]
    path.write_text(json.dumps(content))
    assert made(run) == ""
