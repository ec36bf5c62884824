"""What is found in folders and files, and what is refused."""

import gzip
import json
import os

import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.scores.files import read_lines
from dreamer.scores.runs import read
from dreamer.settings import load, save

RECORD = {
    "task": "atari_pong",
    "method": "m",
    "seed": 3,
    "xs": [20, 10, 30],
    "ys": [2, 1.5, None],
}


def line(frames, score):
    return json.dumps({"step": frames, "episode/score": score})


def write_run(folder, flags="", lines=()):
    folder.mkdir(parents=True)
    argv = f"--configs atari100k {flags} --logdir {folder}".split()
    save(load(argv), folder / "config.yaml")
    (folder / "scores.jsonl").write_text("".join(f"{x}\n" for x in lines))
    return folder


def test_a_run(tmp_path):
    flags = "size12m --task atari100k_james_bond --seed 5"
    folder = write_run(tmp_path / "x", flags, [line(8, 1), line(4, -2.5)])
    (run,) = read(tmp_path)
    assert run.name == str(folder)
    assert (run.benchmark, run.game) == ("atari100k", "jamesbond")
    assert (run.method, run.seed, run.broken) == ("size12m", 5, 0)
    assert list(run.frames) == [4, 8]
    assert list(run.scores) == [-2.5, 1]
    assert len(run.evaluation) == 0


@pytest.mark.parametrize(
    ("flags", "method"),
    [
        ("", "size200m"),
        ("size1m --run.train_ratio 128", "size1m ratio 128"),
        ("atari200m size1m", "size1m"),
        ("size1m --agent.dyn.rssm.deter 264", "top"),
    ],
)
def test_the_method_is_the_size_and_an_unusual_ratio(tmp_path, flags, method):
    write_run(tmp_path / "top" / "pong-0", flags)
    assert read(tmp_path / "top")[0].method == method
    assert read(tmp_path / "top", "mine")[0].method == "mine"


def test_broken_lines_are_left_out_and_counted(tmp_path):
    broken = [
        '{"step": 1, "episode/sc',
        "[1, 2]",
        line("1", 2),
        line(True, 2),
        line(-1, 2),
        line(1e300, 2),
        line(1, 10**400),
        '{"episode/score": 2}',
        line(1, float("nan")),
        "[" * 100_000,
        "\0\0",
    ]
    fine = ['{"step": 3, "episode/length": 2}', line(2, None), line(2, 7), ""]
    write_run(tmp_path / "x", "", broken + fine)
    with (tmp_path / "x/scores.jsonl").open("ab") as file:
        file.write(b'{"step": 1, "\xff')
    (run,) = read(tmp_path)
    assert run.broken == len(broken) + 1
    assert (list(run.frames), list(run.scores)) == ([2], [7])
    # Of the fine lines, one is of an episode without a finite score.
    assert read_lines(tmp_path / "x/scores.jsonl").unscored == 1


def test_evaluation_episodes_of_all_files(tmp_path):
    folder = write_run(tmp_path / "x")
    for name, score in (("eval.json", 1), ("eval-2.json", 2)):
        text = json.dumps({"episodes": [{"score": score, "length": 9}]})
        (folder / name).write_text(text)
    assert sorted(read(tmp_path)[0].evaluation) == [1, 2]


def test_evaluation_is_that_of_the_newest_checkpoint_as_in_training(tmp_path):
    folder = write_run(tmp_path / "x")
    sampled = {"mode": "sample", "settings": {"jax.platform": "cpu"}}
    for score, about in enumerate(
        (
            {"checkpoint": 900, **sampled},
            {"checkpoint": 1000, **sampled},
            {"checkpoint": 1000, **sampled, "seed": 1},
            {"checkpoint": 1000, "mode": "argmax"},
            {"checkpoint": 1000, "settings": {"env.atari100k.sticky": "0.2"}},
            {"checkpoint": 1000, **sampled, "cut_short": 1},
        )
    ):
        about["episodes"] = [{"score": score, "length": 9}]
        (folder / f"eval-{score}.json").write_text(json.dumps(about))
    assert list(read(tmp_path)[0].evaluation) == [1, 2]
    assert read(tmp_path)[0].checkpoint == 1000


def test_of_evaluations_with_the_same_seed_the_longest_counts(tmp_path):
    folder = write_run(tmp_path / "x")
    for name, seed, scores in (
        ("9-sample", 0, [1, 2]),
        ("9-sample-episodes1", 0, [1]),
        ("9-sample-episodes3", 0, [1, 2, 3]),
        ("9-sample-seed1", 1, [7]),
        ("10-sample", 0, []),
    ):
        about = {"checkpoint": int(name.partition("-")[0]), "seed": seed}
        about["episodes"] = [{"score": x} for x in scores]
        (folder / f"eval-{name}.json").write_text(json.dumps(about))
    (run,) = read(tmp_path)
    assert sorted(run.evaluation) == [1, 2, 3, 7]
    assert run.checkpoint == 9


@pytest.mark.parametrize(
    "content", ["[1]", '{"mean": 3}', '{"episodes": [{"score": null}]}', "x"]
)
def test_an_odd_evaluation_alone_is_left_out(tmp_path, content):
    folder = write_run(tmp_path / "x", "", [line(4, 5)])
    (folder / "eval-1.json").write_text(content)
    (folder / "eval-2.json").symlink_to(tmp_path / "nowhere")
    (folder / "eval-3.json").write_text('{"episodes": [{"score": 2}]}')
    left_out = []
    (run,) = read(folder, left_out=left_out)
    assert (list(run.scores), list(run.evaluation)) == ([5], [2])
    first, second = left_out
    assert first.startswith(f"{folder}/eval-1.json: expected {{")
    assert second == f"{folder}/eval-2.json: expected a file"


def test_an_evaluation_that_may_not_be_read_is_left_out(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    folder = write_run(tmp_path / "x")
    (folder / "eval.json").write_text("{}")
    monkeypatch.setattr("dreamer.scores.runs.read_evaluation", refuse)
    left_out = []
    assert len(read(tmp_path, left_out=left_out)) == 1
    assert left_out == [f"{folder}/eval.json: Permission denied"]


def test_a_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
    write_run(tmp_path / "x")
    (tmp_path / "lost+found").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    left_out = []
    assert len(read(tmp_path, left_out=left_out)) == 1
    assert left_out == [f"{tmp_path}/lost+found: Permission denied"]
    with pytest.raises(ConfigError, match=r"lost\+found: Permission denied$"):
        read(tmp_path / "lost+found")


def test_checkpoints_are_not_searched_and_files_are_found(tmp_path):
    folder = write_run(tmp_path / "a" / "b")
    write_run(folder / "ckpt" / "inside")
    packed = gzip.compress(json.dumps([RECORD]).encode())
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "curves.json.gz").write_bytes(packed)
    runs = read(tmp_path)
    assert [x.method for x in runs] == ["size200m", "m"]


def test_a_file_of_records(tmp_path):
    path = tmp_path / "curves.json"
    path.write_text(json.dumps([RECORD]))
    (run,) = read(path)
    assert (run.benchmark, run.game, run.method) == ("atari100k", "pong", "m")
    assert run.seed == 3
    assert list(run.frames) == [10, 20]
    assert list(run.scores) == [1.5, 2]
    assert read(path, "mine")[0].method == "mine"
    path.write_text(json.dumps([RECORD, RECORD | {"xs": [1, 2e6, 3]}]))
    assert [x.benchmark for x in read(path)] == ["atari200m"] * 2


def test_runs_of_a_file_are_told_apart(tmp_path):
    path = tmp_path / "curves.json"
    change = [("a", 0), ("b", 0), ("b", 1), ("b", 1)]
    records = [RECORD | {"method": x, "seed": y} for x, y in change]
    path.write_text(json.dumps(records))
    names = [x.name for x in read(path)]
    assert names[3] == f"{path}, record 4: atari_pong seed 1"
    assert len(set(names)) == 4


def test_a_run_has_the_same_name_by_any_link(tmp_path):
    folder, file = write_run(tmp_path / "x" / "y"), tmp_path / "curves.json"
    file.write_text(json.dumps([RECORD]))
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "link.json").symlink_to(file)
    for place, link in ((folder, "link"), (file, "link.json")):
        (run,), (linked,) = read(place), read(tmp_path / link)
        assert run.name == linked.name


def test_names_are_one_printable_line(tmp_path):
    path = tmp_path / "curves.json"
    path.write_text(json.dumps([RECORD | {"method": "a\nb" + "c" * 999}]))
    method = read(path)[0].method
    assert method.isprintable()
    assert len(method) <= 80


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"[1]",
        b"nonsense",
        b"\xff",
        b"[" * 100_000,
        *(
            json.dumps([RECORD | change]).encode()
            for change in (
                {"xs": [1]},
                {"xs": 5},
                {"ys": ["1", 2, 3]},
                {"seed": None},
                {"method": 5},
                {"task": "atari_pongg"},
                {"task": "dmc_walker"},
            )
        ),
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.json.gz"])
def test_odd_files_are_refused(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(
        gzip.compress(content) if name.endswith("gz") else content
    )
    with pytest.raises(ConfigError, match=r"x\.json"):
        read(path)


@pytest.mark.parametrize(
    "content",
    [b"[]", gzip.compress(b"[1, 2]")[:-5]],  # the packed one holds the time
    ids=["not packed", "cut off"],
)
def test_damaged_gzip_is_refused(tmp_path, content):
    path = tmp_path / "x.json.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged, or not packed"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.yaml", "task: atari100k_pongg", "did you mean pong"),
        ("config.yaml", "task: gym_CartPole-v1", "expected atari100k_<game>"),
        ("config.yaml", "seed: 5", "task None: expected atari100k_<game>"),
        ("config.yaml", "a: [", "config.yaml, line"),
        ("scores.jsonl", "nonsense\n", "there is none"),
    ],
)
def test_odd_runs_are_refused(tmp_path, name, content, words):
    folder = write_run(tmp_path / "x")
    (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=words):
        read(tmp_path)


def test_a_folder_without_settings_is_refused(tmp_path):
    (write_run(tmp_path / "x") / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"has scores.jsonl and no config"):
        read(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        read(tmp_path / "none")


def test_another_tools_settings(tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    settings = "task: atari_pong\nscript: train\nagent: {enc: {typ: simple}}\n"
    (folder / "config.yaml").write_text(settings)
    (folder / "scores.jsonl").write_text(line(400.0, 1) + "\n")
    (run,) = read(folder)
    assert (run.benchmark, run.method) == ("atari200m", "other")
    assert run.seed == 0
    assert np.array_equal(run.frames, [400])
