"""How a run stands: what its page says, and which files are believed."""

import json
import time

import pytest

from dreamer import status
from dreamer.pages import state
from dreamer.pages.page import page
from dreamer.pages.read import read
from tests.pages import logdirs
from tests.pages.test_page import Outline

NOW = time.time()
TOLD = {
    "state": "failed",
    "error": "environment 0: <b>boom</b>\n",
    "time": NOW,
    "policy_steps": 11,
    "updates": 2,
}
LONG_AGO = 1_767_323_045  # 2026-01-02 03:04 UTC


def tell(folder, **changes):
    (folder / status.FILE).write_text(json.dumps(TOLD | changes))


def warnings(folder):
    found = Outline(page(read(folder)))
    return [x for about, x in found.all("p") if about == {"class": "warning"}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            "Failed at 11 of 100 policy steps: environment 0: <b>boom</b>\\n",
        ),
        (
            {"error": ["odd"]},
            "Failed at 11 of 100 policy steps: it does not say why",
        ),
        (
            {"state": "interrupted", "error": None},
            "Interrupted at 11 of 100 policy steps. It goes on when the same"
            " command is given again.",
        ),
        (
            {"state": "running"},
            "Running when this page was made, at 11 of 100 policy steps.",
        ),
        (
            {"state": "running", "time": LONG_AGO},
            "Silent since 2026-01-02 03:04 UTC, at 11 of 100 policy steps: it"
            " was killed, or the machine is off. It goes on when the same"
            " command is given again.",
        ),
        (
            {"state": "<i>odd</i>"},
            "Not finished: at 0% of its policy steps. It is running, or goes"
            " on when the same command is given again.",
        ),
    ],
)
def test_the_page_says_how_the_run_stands(tmp_path, changes, words):
    logdirs.settings(tmp_path)
    tell(tmp_path, **changes)
    assert warnings(tmp_path) == [words]


def test_steps_and_updates_are_those_that_were_told(tmp_path):
    logdirs.settings(tmp_path)
    tell(tmp_path)
    rows = Outline(page(read(tmp_path))).rows()
    assert ["Policy steps", "100", "11"] in rows
    assert ["Frames", "400", "44"] in rows
    assert ["Updates", "8", "2"] in rows


def test_a_run_that_is_done_needs_no_words(run):
    tell(run, state="done", policy_steps=100)
    assert warnings(run) == []
    tell(run, state="failed", policy_steps=100, error="disk full")
    assert warnings(run) == ["Failed at 100 of 100 policy steps: disk full"]


def test_what_a_run_writes_is_read(tmp_path):
    status.Status(tmp_path, 100, 11).write("failed", "why")
    found = state.read(tmp_path)
    assert (found.word, found.error, found.policy_steps) == (
        "failed",
        "why",
        11,
    )
    assert found.time == pytest.approx(time.time(), abs=60)
    assert found.updates is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"5",
        b"\xff",
        b"[" * 50_000,
        b'{"state": "failed"}',
        b'{"state": "failed", "time": 1e300}',
        b'{"state": "failed", "time": 1e18}',
        b'{"state": "failed", "time": NaN}',
        b'{"state": ["failed"], "time": 0}',
        b'{"state": {}, "time": 0}',
        b'{"state": "failed", "time": 0' + b" " * 200_000 + b"}",
    ],
)
def test_other_files_say_nothing(tmp_path, content):
    logdirs.settings(tmp_path)
    (tmp_path / status.FILE).write_bytes(content)
    assert state.read(tmp_path) is None
    assert "Not finished" in page(read(tmp_path))


@pytest.mark.parametrize("number", [-1, "11", None, 1e300, [], float("nan")])
def test_odd_numbers_are_not_counted(tmp_path, number):
    logdirs.settings(tmp_path)
    tell(tmp_path, policy_steps=number, updates=number)
    assert "Failed at 0 of 100 policy steps" in page(read(tmp_path))
