"""The command: what it writes, says and refuses."""

import json
import shlex

import pytest

from dreamer import plot
from dreamer.settings import load, save
from tests.refusals import files, outcome

NAMES = {
    f"atari100k{ending}"
    for ending in (
        ".csv",
        ".md",
        "-curves.png",
        "-curves.svg",
        "-averages.png",
        "-averages.svg",
    )
}


def write_run(folder, flags="", score=1, last=395_000, suite="atari100k"):
    folder.mkdir(parents=True)
    argv = f"--configs {suite} size1m {flags} --logdir {folder}".split()
    save(load(argv), folder / "config.yaml")
    with (folder / "scores.jsonl").open("w") as file:
        for frames in (10_000, last):
            row = {"step": frames, "episode/score": score}
            file.write(json.dumps(row) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    for seed in range(2):
        write_run(tmp_path / "runs" / f"pong-{seed}", f"--seed {seed}", seed)
    return tmp_path / "runs"


def program(text):
    plot.main(text.split())


def test_everything_is_written(runs, tmp_path, capsys):
    out = tmp_path / "deep" / "plots"
    program(f"{runs} --out {out}")
    assert {x.name for x in out.iterdir()} == NAMES
    assert all(
        x.stat().st_size > 1000 for x in out.iterdir() if x.suffix != ".csv"
    )
    assert (out / "atari100k-curves.png").read_bytes()[:4] == b"\x89PNG"
    first = files(out)
    program(f"{runs} {runs}/pong-0 --out {out}")
    # A run given twice counts once, and the files are the same bytes.
    assert files(out) == first
    said = capsys.readouterr().out
    assert said.startswith("Runs: 2\n")
    assert "Broken" not in said
    assert "averaged, though" not in said


def test_two_benchmarks(runs, tmp_path):
    write_run(tmp_path / "other", suite="atari200m")
    program(f"{runs} {tmp_path}/other --out {tmp_path}/out")
    found = {x.name for x in (tmp_path / "out").iterdir()}
    # The second run has no episode at its end, so no average.
    assert found == NAMES | {
        "atari200m.csv",
        "atari200m.md",
        "atari200m-curves.png",
        "atari200m-curves.svg",
    }


def test_what_a_person_should_know_is_said(runs, tmp_path, capsys):
    with (runs / "pong-0" / "scores.jsonl").open("a") as file:
        file.write('{"step": 4, "epi')
    write_run(runs / "pong-2", "--seed 1 --agent.opt.lr 1e-4", last=20_000)
    program(f"{runs} --out {tmp_path}/out")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "Runs: 3",
        f"Broken lines left out: 1, in {runs}/pong-0 (1)",
        "size1m, pong: 2 runs have seed 1, and each of them counts",
        "size1m: averaged, though runs differ in agent.opt.lr",
        "size1m: training episodes ended in 390K-400K frames: 1 of 3 runs"
        " have none and do not count (atari100k.md names them)",
    ]
    assert lines[5].startswith("Written: ")


def test_unlike_checkpoints_are_said(runs, tmp_path, capsys):
    for name, steps in (("pong-0", 110_000), ("pong-1", 110_000)):
        about = {"checkpoint": steps, "episodes": [{"score": 1}]}
        (runs / name / "eval.json").write_text(json.dumps(about))
    program(f"{runs} --out {tmp_path}/out")
    assert "are averaged" not in capsys.readouterr().out
    (runs / "pong-1" / "eval.json").write_text(
        json.dumps(about | {"checkpoint": 2000})
    )
    program(f"{runs} --out {tmp_path}/out")
    assert (
        "size1m: evaluation episodes are averaged, though played after 2,000"
        " to 110,000 policy steps" in capsys.readouterr().out.splitlines()
    )


def write_odd_runs(folder):
    """One of another benchmark, and one that cannot be read."""
    write_run(folder / "gym", "--task gym_CartPole-v1")
    (write_run(folder / "garbage") / "scores.jsonl").write_text("garbage\n")


def test_runs_that_are_no_atari_or_damaged_hide_no_others(
    runs, tmp_path, capsys
):
    program(f"{runs} --out {tmp_path}/first")
    write_odd_runs(runs / "more")
    (runs / "pong-1" / "eval-1.json").write_text("[1]")
    capsys.readouterr()
    program(f"{runs} {runs} --out {tmp_path}/out")
    assert capsys.readouterr().out.splitlines()[:5] == [
        "Runs: 2",
        "Left out: 3",
        f'  {runs}/more/garbage/scores.jsonl: expected lines as {{"step":'
        ' 4000, "episode/score": 1.0}, and there is none',
        f"  {runs}/more/gym/config.yaml: task gym_CartPole-v1: expected"
        " atari100k_<game> or atari_<game>",
        f'  {runs}/pong-1/eval-1.json: expected {{"episodes": [{{"score":'
        " number}, ...]}",
    ]
    assert files(tmp_path / "out").keys() == {
        tmp_path / "out" / x for x in NAMES
    }
    assert table(tmp_path / "out") == table(tmp_path / "first")


def test_a_run_with_too_many_frames_hides_no_other(runs, tmp_path, capsys):
    program(f"{runs} --out {tmp_path}/first")
    write_run(runs / "pong-2", last=10**12)
    capsys.readouterr()
    program(f"{runs} --out {tmp_path}/out")
    assert capsys.readouterr().out.splitlines()[:3] == [
        "Runs: 2",
        "Left out: 1",
        f"  {runs}/pong-2: 1000000000000 frames make more than 10000 bins of"
        " 20000; --bin FRAMES makes larger ones",
    ]
    assert table(tmp_path / "out") == table(tmp_path / "first")
    program(f"{runs} --bin 1e9 --out {tmp_path}/large")
    assert capsys.readouterr().out.startswith("Runs: 3\n")


def test_runs_of_a_file_and_linked_ones_count_once(runs, tmp_path, capsys):
    record = {"task": "atari_pong", "xs": [395_000], "ys": [1]}
    file = tmp_path / "curves.json"
    names = [("A", 0), ("B", 0), ("B", 1)]
    records = [record | {"method": x, "seed": y} for x, y in names]
    file.write_text(json.dumps(records))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "run").symlink_to(runs / "pong-0")
    (tmp_path / "links" / "file.json").symlink_to(file)
    program(f"{file} {tmp_path}/links/file.json --out {tmp_path}/out")
    assert capsys.readouterr().out.startswith("Runs: 3\n")
    program(f"{tmp_path}/links {runs} --out {tmp_path}/out")
    assert capsys.readouterr().out.startswith("Runs: 2\n")


def test_the_home_folder_and_logdir(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    program("--logdir ~/runs/pong-0 --logdir=~/runs --out=~/plots")
    assert {x.name for x in (tmp_path / "plots").iterdir()} == NAMES
    assert {x.name for x in tmp_path.iterdir()} == {"runs", "plots"}


def table(folder):
    return (folder / "atari100k.csv").read_text()


def test_labels(runs, tmp_path):
    program(f"{runs} --out {tmp_path}/a --label mine")
    assert "atari100k,mine,training" in table(tmp_path / "a")
    program(f"{runs}/pong-0 {runs}/pong-1 --label x,y --out {tmp_path}/b")
    assert "atari100k,x,training" in table(tmp_path / "b")
    assert "atari100k,y,training" in table(tmp_path / "b")


def test_window_and_bin(runs, tmp_path):
    flags = "--window 5000,20000 --bin 400000"
    program(f"{runs} --out {tmp_path}/out {flags}")
    assert "training,5000,20000,pong" in table(tmp_path / "out")


BAD = [
    ("", "required: DIR"),
    ("''", "DIR: expected a path, and it is empty"),
    ("{runs} --out ''", "--out: expected a path, and it is empty"),
    ("{here}/none", "no such folder or file"),
    ("{here}/empty", "holds no run"),
    ("{runs} --out {runs}/pong-0/config.yaml", "expected a folder"),
    ("{runs} --out {runs}/pong-0/config.yaml/x", "config.yaml"),
    ("{runs} --window 5", "expected two numbers of frames"),
    ("{runs} --window 5,4", "expected two numbers of frames"),
    ("{runs} --window nan,4", "expected two numbers of frames"),
    ("{runs} --bin 0", "expected 1 to 1e12"),
    ("{runs} --bin 1", "more than 10000 bins"),
    ("{runs} --bin x", "--bin: x: expected 1 to 1e12 frames"),
    ("{here}/odd", "odd: none of 2 runs can be read: "),
    ("{here}/odd/gym", "gym_CartPole-v1: expected atari100k_<game>"),
    ("{here}/odd/garbage", "scores.jsonl: expected lines as"),
    ("{runs} {here}/odd/gym", "gym_CartPole-v1: expected atari100k_<game>"),
    ("{runs} --label a,b", "expected one name, or 1"),
    ("{runs} --colour red", "--colour: unknown flag"),
    ("{runs} --windo 1,2", "--windo: unknown flag; did you mean window?"),
    ("{here}/odd.json", "odd.json: expected a list of records"),
    ("{here}/game", "did you mean pong"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_bad_input_is_one_line(runs, tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.json").write_text('{"a": 1}')
    (write_run(tmp_path / "game") / "config.yaml").write_text(
        "task: atari100k_pongg\n"
    )
    write_odd_runs(tmp_path / "odd")
    argv = shlex.split(text.format(here=tmp_path, runs=runs))
    assert words in outcome("dreamer.plot", plot.main, argv, tmp_path)
