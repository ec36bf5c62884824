"""The page: what it says of a run, to everybody, and what it never does."""

import html.parser
import itertools
import json
import os
import re

import pytest

from dreamer.pages import films
from dreamer.pages.index import entry, index
from dreamer.pages.page import page, write
from dreamer.pages.read import read
from tests.pages import logdirs

VOID = {"meta"}


class Outline(html.parser.HTMLParser):
    """Elements of a page, with the text of each, and whether they nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        element = name, dict(attributes), []
        self.found.append(element)
        if name not in VOID:
            self.open.append(element)

    def handle_endtag(self, name):
        assert self.open.pop()[0] == name

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def all(self, *names):
        return [
            (attributes, "".join(texts))
            for name, attributes, texts in self.found
            if name in names
        ]

    def rows(self):
        """Cells of all rows of tables."""
        rows = [x for x in self.found if x[0] in ("tr", "td", "th")]
        cells = []
        for name, _, texts in rows:
            if name == "tr":
                cells.append([])
            else:
                cells[-1].append("".join(texts))
        return cells


@pytest.fixture(scope="module")
def outline(finished):
    return Outline(page(read(finished)))


def test_plan_and_what_happened(outline):
    rows = outline.rows()
    for row in (
        ["Policy steps", "100", "100"],
        ["Frames", "400", "400"],
        ["Updates", "8", "30"],
        ["Train ratio (time steps replayed per policy step)", "4", "3.9"],
        ["Time of training", "–", "3:20"],  # 100 steps at 0.5 per second
        ["Policy steps per second", "–", "0.5"],
        ["Updates per second", "–", "0.15"],
        ["Share of the time waiting for data", "–", "2.00%"],
    ):
        assert row in rows


def test_what_was_run(outline):
    rows, text = outline.rows(), outline.all("main")[0][1]
    assert ["run.steps", "300", "100"] in rows
    assert "Settings that differ from --configs atari100k debug" in text
    command = logdirs.START["command"]
    assert rows.count(["jax", "0.10.2"]) == 1
    starts = [x for x in rows if x[-1] == command]
    assert [x[:2] for x in starts] == [
        ["2026-01-02 03:04:05 UTC", "0"],
        ["2026-01-02 03:04:05 UTC", "50"],
    ]
    for words in (
        "0123456789abcdef with uncommitted changes",
        "2 × H200",
        "gpu, version 0.10.2",
    ):
        assert words in text


def test_scores_beside_the_published_ones(outline):
    rows = outline.rows()
    # Mean of -10 to -1; random is -20.7 and human 14.6.
    assert ["the last 10", "10", "-5.5", "43%"] in rows
    # 1, -2 and 4.
    assert [
        "100",
        "sampled",
        "3",
        "1.0",
        "-3.5 to 4.5",
        "1.0",
        "61%",
        "seed 0; at most 108,000 policy steps",
    ] in rows


def test_scores_of_a_window(tmp_path):
    logdirs.settings(tmp_path, "--seed 1", steps=100_000)
    rows = [
        {"step": 350_000, "episode/score": 20},
        {"step": 370_000, "episode/score": 1},
        {"step": 395_000, "episode/score": 4},
        {"step": 396_000, "episode/score": 5},
    ]
    logdirs.lines(tmp_path / "scores.jsonl", rows)
    found = Outline(page(read(tmp_path))).rows()
    row = ["ended in 390K-400K frames", "2", "4.5", "71%", "-4.0", "47%"]
    assert row in found
    row = ["ended in 360K-400K frames", "3", "3.3", "68%", "-4.2", "47%"]
    assert row in found


def test_a_task_without_published_scores(tmp_path):
    logdirs.settings(tmp_path / "run", "--task gym_CartPole-v1")
    tmp_path /= "run"
    rows = [{"step": n, "episode/score": n} for n in (10, 20, 60)]
    logdirs.lines(tmp_path / "scores.jsonl", rows)
    logdirs.evaluation(tmp_path / "eval-9-argmax.json", [5.0], 9)
    outline = Outline(page(read(tmp_path)))
    assert ["the last 3", "3", "30.0"] in outline.rows()
    assert outline.all("h1")[0][1] == "CartPole-v1"
    text = outline.all("main")[0][1]
    assert "at 60% of its policy steps" in text
    assert "human" not in text
    assert "ublished" not in text


def test_updates_that_were_not_applied_are_told(outline, run):
    text = outline.all("main")[0][1]
    assert "loss or gradient was not finite: 1." in text
    rows = [{**x, "train/opt/nonfinite": 0.0} for x in logdirs.metrics(3)]
    logdirs.lines(run / "metrics.jsonl", rows)
    (run / "nonfinite" / "update-9.npz").unlink()
    assert "Every update had a finite loss" in page(read(run))


def test_missing_parts_say_what_makes_them(tmp_path):
    logdirs.settings(tmp_path / "a b")
    text = page(read(tmp_path / "a b"))
    command = f"python -m dreamer.evaluate --logdir '{tmp_path}/a b' --video 1"
    assert "makes one, with a video" in text
    assert Outline(text).all("code")[0][1] == command
    for words in (
        "No episode has ended yet",
        "run.report_every",
        "starts.jsonl",
        "metrics.jsonl",
        "No checkpoint is here",
        "Not finished: at 0% of its policy steps",
    ):
        assert words in text


def test_a_copy_without_checkpoints_is_finished_if_it_was(tmp_path):
    logdirs.settings(tmp_path, steps=1000)
    rows = [{"step": 3996, "episode/score": 3}]  # as runs end in an episode
    logdirs.lines(tmp_path / "scores.jsonl", rows)
    assert "Not finished: at 99% of its policy steps" in page(read(tmp_path))
    logdirs.evaluation(tmp_path / "eval-999.json", [1.0], 10**400)
    assert "Not finished: at 99% of its policy steps" in page(read(tmp_path))
    logdirs.evaluation(tmp_path / "eval-1000.json", [1.0], 1000)
    text = page(read(tmp_path))
    assert "Not finished" not in text
    assert ["Policy steps", "1,000", "1,000"] in Outline(text).rows()


def test_an_evaluation_of_an_earlier_agent_says_so(run):
    small = [x for _, x in Outline(page(read(run))).all("small")]
    assert "3 episodes" in small
    path = run / "eval-100-sample.json"
    logdirs.evaluation(path, [1.0, 2.0, 3.0], 50)
    small = [x for _, x in Outline(page(read(run))).all("small")]
    assert "3 episodes, after 50 policy steps" in small


def test_a_run_that_has_only_just_begun(tmp_path):
    logdirs.settings(tmp_path)
    rows = [{"step": 0, "episode/score": 3}]
    logdirs.lines(tmp_path / "scores.jsonl", rows)
    assert ["the last 1", "1", "3.0", "67%"] in Outline(
        page(read(tmp_path))
    ).rows()


def test_a_speed_of_almost_nothing_gives_no_time(run):
    rows = [{**x, "fps/policy": 1e-320} for x in logdirs.metrics(3)]
    logdirs.lines(run / "metrics.jsonl", rows)
    rows = Outline(page(read(run))).rows()
    assert ["Time of training", "–", "not known"] in rows


def test_no_heading_stands_above_nothing(outline):
    headings = [x for _, x in outline.all("h3")]
    assert headings[:2] == ["World model", "Actor and critic"]
    assert "Behaviour and gradient" not in headings


def test_what_is_asked_for_can_be_done(run, tmp_path):
    """CartPole has no picture, unless there are films already."""
    logdirs.settings(tmp_path / "x", "--task gym_CartPole-v1")
    text = page(read(tmp_path / "x"))
    command = f"python -m dreamer.evaluate --logdir {tmp_path}/x"
    assert Outline(text).all("code")[0][1] == command
    assert "This makes one:" in text
    logdirs.settings(run, "--task gym_dreamer/Catch-v0")
    (run / "eval-100-sample.json").unlink()
    assert Outline(page(read(run))).all("code")[0][1].endswith("--video 1")


def test_no_video_is_promised_where_none_is_made(tmp_path):
    logdirs.settings(tmp_path, "--run.report_every 0")
    text = page(read(tmp_path))
    assert "There is no video, as run.report_every is 0." in text
    assert "yet. A run of dreamer.train makes some" not in text


def test_scores_and_losses_that_are_not_finite(tmp_path):
    logdirs.settings(tmp_path, "--logger.outputs jsonl")
    rows = [{"step": 20 * n, "episode/score": None} for n in range(1, 5)]
    logdirs.lines(tmp_path / "scores.jsonl", rows)
    rows = [
        {"step": 40 * n, "updates": 8.0 * n, "train/loss/rew": None}
        for n in range(1, 3)
    ]
    logdirs.lines(tmp_path / "metrics.jsonl", rows)
    text = page(read(tmp_path))
    assert "4 episodes ended, none with a finite score." in text
    assert "No episode has ended yet" not in text
    assert "None of 16 updates has a finite loss." in text
    assert "among logger.outputs" not in text
    logdirs.lines(tmp_path / "metrics.jsonl", [])
    assert page(read(tmp_path)).count("No update is in metrics.jsonl.") == 2
    with (tmp_path / "scores.jsonl").open("a") as file:
        file.write('{"step": 100, "episode/score": 3}\n')
    text = page(read(tmp_path))
    assert "Left out: 4 episodes whose score was not finite." in text


def test_broken_lines_stand_at_the_top(run):
    with (run / "scores.jsonl").open("a") as file:
        file.write("{")
    text = page(read(run))
    assert text.index("1 broken line left out") < text.index("<h2>")


def test_nothing_in_a_file_becomes_markup(run):
    evil = '"><script>alert(1)</script><b a=\'"&'
    start = {k: evil for k in logdirs.START if k != "package_versions"}
    start |= {"package_versions": {evil: evil}, "devices": {evil: evil}}
    logdirs.lines(run / "starts.jsonl", [start])
    rows = [{**x, f"train/loss/{evil}": 1.0} for x in logdirs.metrics(3)]
    logdirs.lines(run / "metrics.jsonl", rows)
    path = run / "eval-100-sample.json"
    content = json.loads(path.read_text())
    evil_name = "eval-<img src=x>.mp4"
    content["episodes"][0]["video"] = f"videos/{evil_name}"
    (run / "videos" / evil_name).write_bytes(b"x")
    content |= {"mode": evil, "ci95": [evil, evil], "checkpoint": evil}
    path.rename(run / "eval-<script>.json").write_text(json.dumps(content))
    with (run / "config.yaml").open("a") as file:
        file.write("'<script>': 1\n")
    text = page(read(run))
    outline = Outline(text)
    assert outline.all("script", "img", "b") == []
    assert text.count("&lt;script&gt;") > 5
    assert evil in outline.all("main")[0][1]


def test_headings_are_in_order(outline):
    (lang,) = [x["lang"] for x, _ in outline.all("html")]
    assert lang == "en"
    viewports = [x for x, _ in outline.all("meta") if "name" in x]
    assert viewports[0]["content"] == "width=device-width, initial-scale=1"
    assert outline.all("title")[0][1] == "Pong, seed 3: report"
    levels = [
        int(name[1])
        for name, *_ in outline.found
        if re.fullmatch("h[1-6]", name)
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    for before, level in itertools.pairwise(levels):
        assert level <= before + 1
    assert [x for _, x in outline.all("h2")] == [
        "Score",
        "Evaluation",
        "Dreams of the world model",
        "Losses",
        "Plan and what happened",
        "What was run",
        "State of the run",
    ]


def test_everything_has_a_text_for_those_who_do_not_see_it(outline):
    charts = [x for x, _ in outline.all("div") if x.get("role") == "img"]
    assert len(charts) == 4  # scores, and the three losses
    assert charts[0]["aria-label"] == (
        "Line chart. The mean score begins at -19.0, is highest at -2.5"
        " around 367 frames and ends at -2.5 around 367 frames."
        " Random score: -20.7. Human score: 14.6."
    )
    assert "1000 at 40 frames, 100 at 400" in charts[1]["aria-label"]
    assert len(outline.all("figcaption")) == len(outline.all("figure")) == 7
    assert len(outline.all("video")) == 3
    for attributes, text in outline.all("video"):
        assert attributes["aria-label"] == text != ""
        assert {"controls", "muted", "loop", "playsinline"} <= set(attributes)
        assert "autoplay" not in attributes
    tables = len(outline.all("table"))
    assert len(outline.all("caption")) == tables
    assert all("scope" in x for x, _ in outline.all("th"))


def test_a_page_asks_for_nothing_else(outline):
    for name, attributes, _ in outline.found:
        for key in ("src", "href", "poster", "data", "srcset"):
            if key in attributes:
                assert attributes[key].startswith("data:"), name
    assert outline.all("link", "script", "iframe", "object") == []
    style = outline.all("style")[0][1]
    assert "url(" not in style
    assert "@import" not in style


def test_films_beyond_the_limit_are_linked(run, monkeypatch):
    sizes = [x.stat().st_size for x in (run / "videos").glob("*400.mp4")]
    monkeypatch.setattr(films, "MOST_BYTES", sum(sizes) - 1)
    (run / "videos" / "eval-100-sample-000.mp4").unlink()
    outline = Outline(page(read(run)))
    assert len(outline.all("video")) == 1
    link = outline.all("a")[0]
    expected = "videos/imagined-000000000400.mp4"
    assert link == ({"href": expected}, expected)


def test_names_that_are_not_utf8_are_linked(run, monkeypatch):
    """As bytes, which is what a browser asks for."""
    folder = run.rename(run.with_name(os.fsdecode(b"odd\xff")))
    film = folder / "videos" / "imagined-000000000400.mp4"
    film.rename(film.with_name(os.fsdecode(b"eval-\xfe.mp4")))
    about = {"video": os.fsdecode(b"videos/eval-\xfe.mp4")}
    logdirs.evaluation(folder / "eval-100-sample.json", [1.0], **about)
    monkeypatch.setattr(films, "MOST_BYTES", 0)
    found = read(folder)
    write(folder)
    text = (folder / "report.html").read_text("utf-8")
    links = [x["href"] for x, _ in Outline(text).all("a")]
    assert "videos/eval-%FE.mp4" in links
    row = index(run.parent, [entry(found, run.parent)], {})
    ((attributes, _),) = Outline(row).all("a")
    assert attributes["href"] == "odd%FF/report.html"


def test_the_file_is_replaced_whole(run, monkeypatch):
    path = write(run)
    assert path == run / "report.html"
    before = path.read_bytes()
    assert before.startswith(b"<!doctype html>\n")
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(run)
    assert path.read_bytes() == before


def test_a_disk_that_refuses_leaves_nothing(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write(run)
    assert not list(run.glob("report*"))
