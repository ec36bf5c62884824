"""Updates that were not applied: what is kept of them, and what is told."""

import errno

import ml_dtypes
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


def steps(dtype=np.float32, **values):
    """A batch of two steps, of which all is finite that is not given."""
    whole = {
        "reward": [0.0, 1.0],
        "vector": [[1.0], [2.0]],
        "is_first": [1, 0],
    }
    made = {"action": [0.0, 0.0], "deter": np.zeros((2, 3), dtype)}
    batch = {**whole, **made, **values}
    return {f"batch/{name}": np.array(x) for name, x in batch.items()}


def advice(noted, update):
    with pytest.raises(Diverged) as caught:
        noted.check(update)
    return str(caught.value).partition("/nonfinite; ")[2]


@pytest.mark.parametrize(
    ("dtype", "more"),
    [
        (np.float32, ""),
        (ml_dtypes.bfloat16, " or --jax.compute_dtype float32"),
    ],
)
def test_advice_is_of_what_may_help(dtype, more, tmp_path):
    noted = NonFinite(tmp_path, 1)
    bad = np.full((2, 3), np.nan, dtype)  # no cause: the agent made it
    noted.note(1, False, steps(dtype, deter=bad))
    expected = f"begin another run with a lower agent.opt.lr{more}"
    assert advice(noted, 1) == expected


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"reward": [0.0, np.inf]}, "reward"),
        ({"vector": [[np.nan], [0.0]]}, "vector"),
        (
            {"vector": [[np.nan], [0.0]], "reward": [0.0, -np.inf]},
            "reward and vector",
        ),
    ],
)
def test_what_the_environment_gave_is_named(values, names, tmp_path):
    noted = NonFinite(tmp_path, 2)
    noted.note(1, False, steps(**values, action=[np.nan, 0.0]))
    noted.note(2, False, steps())
    assert advice(noted, 2) == (
        f"what the environment gave is not finite there: {names}"
    )
    # It was the cause of that row alone.
    noted.note(3, True, steps())
    noted.note(4, False, steps())
    noted.note(5, False, steps())
    assert advice(noted, 5).startswith("begin another run")
