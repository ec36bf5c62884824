import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.replay import (
    available_ram,
    bytes_per_step,
    fits_in_ram,
    memory,
)
from tests.replay.slow import BF16, make_replay


def scalar(dtype):
    return ((), np.dtype(dtype))


def test_size200m_on_atari100k_takes_at_most_29_kb_per_step():
    fields = {
        "image": ((64, 64, 3), np.dtype(np.uint8)),
        "action": scalar(np.int32),
        "reward": scalar(np.float32),
        "is_first": scalar(bool),
        "is_last": scalar(bool),
        "is_terminal": scalar(bool),
    }
    latents = {"deter": ((8192,), BF16), "stoch": ((32,), np.dtype(np.uint8))}
    assert bytes_per_step({**fields, **latents}) == 28_715
    replay = make_replay(envs=1, capacity=10, fields=fields, latents=latents)
    allocated = sum(
        array.nbytes
        for ring in (replay._fields, replay._latents)
        for array in ring.arrays.values()
    )
    assert allocated == 10 * replay.bytes_per_step == 287_150


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


MEMINFO = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   5000 kB\n"}


def test_without_groups_the_machine_is_the_limit(tmp_path):
    write(tmp_path, MEMINFO)
    assert available_ram(tmp_path) == 5_120_000
    write(tmp_path, {"proc/self/cgroup": "0::/job\n"})
    assert available_ram(tmp_path) == 5_120_000


def test_the_tightest_group_is_the_limit(tmp_path):
    base = "sys/fs/cgroup/user/job"
    files = {
        "proc/self/cgroup": "0::/user/job\n",
        f"{base}/memory.max": "max\n",
        f"{base}/memory.current": "9\n",
        f"{base}/memory.stat": "inactive_file 1\n",
        "sys/fs/cgroup/user/memory.max": "1000\n",
        "sys/fs/cgroup/user/memory.current": "700\n",
        "sys/fs/cgroup/user/memory.stat": "anon 5\ninactive_file 100\n",
    }
    write(tmp_path, MEMINFO | files)
    assert available_ram(tmp_path) == 1000 - 700 + 100


def test_version_1_groups(tmp_path):
    base = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "5:cpu:/x\n4:hugetlb,memory:/hidden\n",
        f"{base}/memory.limit_in_bytes": "1000\n",
        f"{base}/memory.usage_in_bytes": "900\n",
        f"{base}/memory.stat": "cache 7\ninactive_file 50\n",
    }
    write(tmp_path, MEMINFO | files)
    assert available_ram(tmp_path) == 150


def test_this_machine_has_some_ram():
    assert available_ram() > 2**20


def test_too_large_a_buffer_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(memory, "available_ram", lambda: 3_158_650_000)
    fits_in_ram(110_000, 28_715)
    message = (
        "replay.size: 5000000 steps of 28715 bytes need 143.6 GB of RAM, and"
        " all else about 0.0 GB, but 3.2 GB are available; at most 110000"
        " steps fit"
    )
    with pytest.raises(ConfigError, match=message):
        fits_in_ram(5_000_000, 28_715)


def test_what_else_needs_ram_and_who_else_has_it_count(monkeypatch):
    monkeypatch.setattr(memory, "available_ram", lambda: 10_000)
    fits_in_ram(500, 10, beside=5_000)
    with pytest.raises(ConfigError, match="available; at most 499 steps fit"):
        fits_in_ram(500, 10, beside=5_001)
    fits_in_ram(200, 10, beside=500, sharing=4)
    message = "available for each of 4 processes; at most 200 steps fit"
    with pytest.raises(ConfigError, match=message):
        fits_in_ram(201, 10, beside=500, sharing=4)
    with pytest.raises(ConfigError, match="at most 0 steps fit"):
        fits_in_ram(1, 10, beside=10_001)
