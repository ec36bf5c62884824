"""The benchmark of environments: what it works out, and what it leaves."""

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import bench_cores  # noqa: E402
import bench_data  # noqa: E402

from dreamer.settings import load  # noqa: E402

CONFIG = ["--configs", "atari200m", "size1m", "--logdir", "unused"]


def test_cores_that_updates_need(capsys):
    rows = bench_data.update_needs(load(CONFIG), 2e-3, 1e-4, 8.0)
    assert rows[0]["value"] == "32"  # 1024 / 32
    assert [row["update_ms"] for row in rows[1:]] == [8, 20, 50, 100, 400]
    # 32 steps in 8 ms are 4,000 a second, which take 2 ms of a core each.
    assert rows[1]["value"] == "4,000"
    assert [row["cores"] for row in rows[1:]] == pytest.approx(
        [8, 3.2, 1.28, 0.64, 0.16]
    )
    assert "40.0% of one in the main thread" in rows[1]["beside"]
    assert "4,000" in capsys.readouterr().out


def test_no_updates_need_nothing():
    config = load([*CONFIG, "--run.train_ratio", "0"])
    assert bench_data.update_needs(config, 2e-3, 1e-4, None) == []


def test_environments_are_stepped_on_each_number_of_cores(monkeypatch):
    monkeypatch.setattr(bench_cores, "TURN", 0.05)
    monkeypatch.setattr(bench_cores, "TURNS", 2)
    usable = os.sched_getaffinity(0)
    bound = []
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda pid, x: bound.append((pid, len(x)))
    )
    found = bench_cores.env_rates(load(CONFIG), 2)
    assert list(found) == ([1, 2] if len(usable) > 1 else [1])
    for rates, cost in found.values():
        assert len(rates) == 2
        assert min(rates) > 0
        assert cost > 0
    # The main thread and both workers, three times; at last it has all again.
    assert len([x for x in bound if x[1] == 1]) >= 9
    assert bound[-1] == (0, len(usable))
    assert not multiprocessing.active_children()


def test_the_main_thread_is_measured():
    stepping, storing = bench_data.main_thread(
        load(CONFIG), np.dtype(np.float32), 2
    )
    assert 0 < stepping < 1
    assert 0 < storing < 1
