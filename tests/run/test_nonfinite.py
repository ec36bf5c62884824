"""Updates that were not applied: what is kept of them, and what is told."""

import errno

import numpy as np
import pytest

from dreamer.run import nonfinite
from dreamer.run.nonfinite import Diverged, NonFinite

BATCH = {"batch/file": np.arange(3), "batch/allow_pickle": np.ones(2, bool)}


def test_names_are_no_arguments_of_numpy(tmp_path):
    noted = NonFinite(tmp_path, 5)
    noted.note(1, False, BATCH)
    path = tmp_path / "nonfinite" / "update-1.npz"
    with np.load(path, allow_pickle=False) as kept:
        assert set(kept) == set(BATCH)
        np.testing.assert_array_equal(kept["batch/file"], np.arange(3))
    assert [x.name for x in path.parent.iterdir()] == ["update-1.npz"]


def test_nothing_is_created_before(tmp_path):
    noted = NonFinite(tmp_path / "run", 5)
    noted.note(1, True, BATCH)
    noted.check(1)
    assert list(tmp_path.iterdir()) == []
    assert noted.reports == []


def test_few_batches_are_kept_also_by_a_run_that_goes_on(tmp_path):
    folder = tmp_path / "nonfinite"
    for updates in (range(12), range(8, 12)):
        noted = NonFinite(tmp_path, 1000)
        for update in updates:
            noted.note(update, False, BATCH)
        expected = {f"update-{n}.npz" for n in range(nonfinite.KEPT)}
        assert {x.name for x in folder.iterdir()} == expected
        # What comes again after a resume is kept again.
        told = [x.partition("applied; ")[2] for x in noted.reports[-4:]]
        assert told == [
            f"its batch is in {folder}/update-8.npz",
            f"its batch is in {folder}/update-9.npz",
            *[f"10 batches are in {folder}, so not this one"] * 2,
        ]


def test_a_full_disk_is_not_fatal(tmp_path, monkeypatch):
    def full(stream, **arrays):
        stream.write(b"PK")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    noted = NonFinite(tmp_path, 5)
    noted.note(3, False, BATCH)
    assert noted.in_row == 1
    assert noted.reports[0].endswith(
        "its batch could not be saved (No space left on device)"
    )
    assert list((tmp_path / "nonfinite").iterdir()) == []


def test_a_file_in_the_way_is_not_fatal(tmp_path):
    (tmp_path / "nonfinite").write_text("mine")
    noted = NonFinite(tmp_path, 5)
    noted.note(3, False, BATCH)
    assert "could not be saved (" in noted.reports[0]
    assert (tmp_path / "nonfinite").read_text() == "mine"


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit(limit, tmp_path):
    noted = NonFinite(tmp_path, limit)
    for update in range(1, limit):
        noted.note(update, False, BATCH)
        noted.check(update)
    noted.note(limit, True, BATCH)
    assert noted.in_row == 0
    for update in range(1001, 1001 + limit):
        noted.check(update - 1)
        noted.note(update, False, BATCH)
    with pytest.raises(Diverged, match=rf"^{limit} updates.*update 1,001 on"):
        noted.check(1000 + limit)
