"""Shares of a machine: GPUs and parts of them, or disjoint cores."""

import pytest

from dreamer.options import ConfigError
from dreamer.sweeps import slots
from dreamer.sweeps.flags import parse
from dreamer.sweeps.slots import asked_for, find_gpus, make_slots


@pytest.fixture
def cores(monkeypatch):
    def choose(count):
        monkeypatch.setattr(slots, "usable_cores", lambda: list(range(count)))

    return choose


@pytest.mark.parametrize(
    ("count", "jobs", "expected"),
    [
        (8, None, [(0, 1), (2, 3), (4, 5), (6, 7)]),
        (8, 2, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (7, 3, [(0, 1), (2, 3), (4, 5, 6)]),
        (1, None, [(0,)]),
        (2, 2, [(0,), (1,)]),
        (2, 3, [(0,), (0,), (1,)]),
    ],
)
def test_cores_are_shared_out(cores, count, jobs, expected):
    cores(count)
    found = make_slots([], 1, jobs)
    assert [slot.cores for slot in found] == expected
    assert [slot.number for slot in found] == list(range(len(found)))


def test_gpus_and_their_memory_are_shared_out(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    found = make_slots(["0", "2"], 3, None)
    assert [x.env["CUDA_VISIBLE_DEVICES"] for x in found] == list("020202")
    assert {x.env["XLA_CLIENT_MEM_FRACTION"] for x in found} == {"0.300"}
    # Not the CPU, if CUDA does not start, and the GPU that nvidia-smi means.
    assert {x.env["JAX_PLATFORMS"] for x in found} == {"cuda"}
    assert {x.env["CUDA_DEVICE_ORDER"] for x in found} == {"PCI_BUS_ID"}
    monkeypatch.setenv("JAX_PLATFORMS", "rocm")
    assert make_slots(["0"], 1, None)[0].env["JAX_PLATFORMS"] == "rocm"
    assert not any(slot.cores for slot in found)
    assert len(make_slots(["0", "2"], 3, 4)) == 4


def test_more_runs_than_shares_are_refused():
    with pytest.raises(ConfigError, match="--jobs 5: expected at most 4"):
        make_slots(["0", "1"], 2, 5)


def test_gpus_are_those_that_a_run_would_see(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert find_gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A'; echo 'GPU 1: B'\n")
    program.chmod(0o755)
    assert find_gpus() == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-1", []), ("3,-1,5", ["3"]), ("3,5,-1,3", ["3", "5"]), ("0,", ["0"])],
)
def test_gpus_that_are_hidden_are_none(monkeypatch, text, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    assert find_gpus() == expected


def test_a_gpu_named_twice_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,0")
    message = "CUDA_VISIBLE_DEVICES=0,1,0: expected each GPU once"
    with pytest.raises(ConfigError, match=message):
        find_gpus()


@pytest.fixture
def flags(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def make(*words):
        return parse(["--logdir", "x", *words])[0]

    return make


def test_flags_choose_the_slots(flags, cores):
    cores(4)
    found = asked_for(flags("--gpus", "1,GPU-a", "--jobs", "1"), {"auto"})
    assert [slot.label for slot in found] == ["GPU 1"]
    assert len(asked_for(flags("--gpus", "0"), {"cpu", "gpu"})) == 1
    for platform in ("cpu", "tpu", "auto"):
        assert [x.env for x in asked_for(flags(), {platform})] == [{}, {}]


@pytest.mark.parametrize(
    ("words", "platforms", "message"),
    [
        ("--gpus 0,1", {"cpu"}, "--gpus 0,1: expected where runs use a GPU;"),
        ("--per-gpu 2", {"cpu", "tpu"}, "--per-gpu 2: .* is cpu,tpu$"),
        ("--per-gpu 2", {"auto"}, "--per-gpu 2: .*; none is seen here"),
    ],
)
def test_flags_without_effect_are_refused(flags, words, platforms, message):
    with pytest.raises(ConfigError, match=message):
        asked_for(flags(*words.split()), platforms)
