"""The benchmark of a run: what it refuses."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import bench_run  # noqa: E402

from dreamer.options import ConfigError  # noqa: E402
from dreamer.settings import load  # noqa: E402


@pytest.mark.parametrize(
    "bench",
    [
        lambda config: bench_run.bench_run(config, None),
        lambda config: bench_run.bench_startup(config, None, []),
    ],
)
def test_runs_that_never_train_are_refused(bench):
    flags = "--configs atari100k debug --run.train_ratio 0"
    with pytest.raises(ConfigError, match=r"run\.train_ratio=0: "):
        bench(load(flags.split()))
