"""The command: what it writes, says and refuses."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamer import report
from tests.pages import logdirs
from tests.pages.test_page import Outline
from tests.refusals import files, outcome

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def runs(tmp_path):
    """Runs at two depths, one of which cannot be read."""
    top = tmp_path / "all runs"
    for place, seed in (("pong/b", 7), ("pong/a", 10), ("c", 2)):
        logdirs.settings(top / place, f"--seed {seed}")
    logdirs.settings(top / "krull", "--task atari100k_krull")
    rows = [{"step": 4 * n, "episode/score": n} for n in range(100)]
    logdirs.lines(top / "c" / "scores.jsonl", rows)
    logdirs.evaluation(top / "c" / "eval-1-sample.json", [3.0, 4.0], 1)
    return top


def test_a_run_gets_a_page(runs, capsys):
    before = set(files(runs))
    assert report.main([str(runs / "c")]) == 0
    page = runs / "c" / "report.html"
    assert capsys.readouterr().out == f"Written: {page}\n"
    assert set(files(runs)) - before == {page}


def test_the_home_folder_and_logdir(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert report.main(["--logdir=~/all runs/c"]) == 0
    assert report.main(["~/all runs/krull", "--logdir", "~/all runs/c"]) == 0
    lines = capsys.readouterr().out.splitlines()
    places = [f"Written: {runs}/{x}/report.html" for x in ("c", "krull", "c")]
    assert lines == places


def test_a_folder_of_runs_gets_an_index(runs, capsys):
    assert report.main([str(runs)]) == 0
    pages = sorted(runs.rglob("report.html"))
    assert [str(x.parent.relative_to(runs)) for x in pages] == [
        "c",
        "krull",
        "pong/a",
        "pong/b",
    ]
    assert len(capsys.readouterr().out.splitlines()) == 5
    outline = Outline((runs / "index.html").read_text())
    links = [(x["href"], text) for x, text in outline.all("a")]
    # By task, then by the number of the seed.
    assert links == [
        ("krull/report.html", "Krull"),
        ("c/report.html", "Pong"),
        ("pong/b/report.html", "Pong"),
        ("pong/a/report.html", "Pong"),
    ]
    assert all((runs / x).is_file() for x, _ in links)
    assert outline.all("h1") == [({}, "Runs in all runs")]
    row = outline.rows()[2]
    # The last 10 of scores 0 to 99, at up to 396 frames; random is -20.7.
    assert row[1:6] == ["2", "–", "94.5", "326%", "3.5"]
    assert row[7:] == ["396", "99%", "–"]


def test_the_index_says_how_each_run_is_doing(runs, capsys):
    told = {"state": "failed", "time": time.time(), "error": "<b>no</b>"}
    (runs / "c" / "status.json").write_text(json.dumps(told))
    told = {"state": "running", "time": time.time() - 5000}
    (runs / "krull" / "status.json").write_text(json.dumps(told))
    rows = [{"step": 400, "episode/score": 3}]
    logdirs.lines(runs / "pong" / "a" / "scores.jsonl", rows)
    # Under other conditions: not what the index shows.
    logdirs.evaluation(
        runs / "c" / "eval-2-sample-sticky=0.25.json",
        [-21.0],
        2,
        settings={"env.atari100k.sticky": "0.25"},
    )
    report.main([str(runs)])
    found = Outline((runs / "index.html").read_text()).rows()
    states = {(x[0], x[1]): x[2] for x in found}
    assert found[0][2] == "State"
    assert states["Krullkrull", "0"] == "silent"
    assert states["Pongc", "2"] == "failed"
    assert states["Pongpong/b", "7"] == "–"
    assert states["Pongpong/a", "10"] == "done"
    assert found[2][5] == "3.5"


def test_links_lead_there_whatever_the_names(tmp_path):
    odd = logdirs.settings(tmp_path / "runs" / 'a#b ?"%41<c>')
    report.main([str(tmp_path / "runs")])
    ((attributes, _),) = Outline(
        (tmp_path / "runs" / "index.html").read_text()
    ).all("a")
    assert attributes["href"] == ("a%23b%20%3F%22%2541%3Cc%3E/report.html")
    assert (odd / "report.html").exists()


def test_runs_of_a_grid_are_told_apart(tmp_path):
    for name in ("lr1e-4", "lr4e-5"):
        logdirs.settings(tmp_path / name)
    report.main([str(tmp_path)])
    outline = Outline((tmp_path / "index.html").read_text())
    assert [text for _, text in outline.all("small")] == ["lr1e-4", "lr4e-5"]


def test_a_folder_that_cannot_be_looked_into(runs, monkeypatch, capsys):
    close(runs / "pong", monkeypatch)
    assert report.main([str(runs)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"dreamer.report: {runs}/pong: Permission denied"
    text = (runs / "index.html").read_text()
    assert text.count("<tr>") == 3
    assert f"pong: {runs}/pong: Permission denied" in text
    argv = [str(runs / "pong")]
    line = outcome("dreamer.report", report.main, argv, runs.parent)
    assert line.endswith("/pong: Permission denied\n")


def close(folder, monkeypatch):
    """Nobody may look into a folder."""
    scandir = os.scandir

    def refuse(path):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_one_bad_run_does_not_hide_the_others(runs, capsys):
    (runs / "krull" / "config.yaml").write_text("task: atari100k_krul\n")
    assert report.main([str(runs)]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    (line,) = printed.err.splitlines()
    assert line.startswith("dreamer.report: ")
    assert "did you mean atari100k_krull?" in line
    text = (runs / "index.html").read_text()
    assert text.count("<tr>") == 4
    assert "did you mean atari100k_krull?" in text
    assert not (runs / "krull" / "report.html").exists()


BAD = [
    ("", "required: DIR"),
    ("''", "DIR: expected a path, and it is empty"),
    ("--logdir ''", "--logdir: expected a path, and it is empty"),
    ("{here}/none", "none: no such folder"),
    ("{here}/file", "file: no such folder"),
    ("{here}/empty", "empty: holds no run, expected config.yaml in it"),
    ("{here}/bad", "task=atari_pongg: unknown game"),
    ("{here}/bad/run", "task=atari_pongg: unknown game"),
    ("{here}/good {here}/empty", "empty: holds no run"),
    ("{here}/good --colour red", "--colour: unknown flag"),
    ("--logdirs {here}/good", "--logdirs: unknown flag; did you mean logdir"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_bad_input_is_one_line(tmp_path, text, words):
    logdirs.settings(tmp_path / "good")
    for name in ("empty", "bad/run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "bad" / "run" / "config.yaml").write_text("task: atari_pongg")
    argv = shlex.split(text.format(here=tmp_path))
    assert words in outcome("dreamer.report", report.main, argv, tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    folder = logdirs.settings(tmp_path / "run")
    (folder / "report.html").mkdir()
    argv = [str(folder)]
    line = outcome("dreamer.report", report.main, argv, tmp_path)
    assert "Is a directory" in line


def test_the_program_is_light(runs):
    """It starts without JAX and Matplotlib, as they take seconds."""
    code = (
        "import sys; from dreamer import report;"
        f" assert report.main([{str(runs / 'c')!r}]) == 0;"
        " assert not {'jax', 'matplotlib', 'gymnasium'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
