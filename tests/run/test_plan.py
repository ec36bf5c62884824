"""The plan: numbers that follow from settings, and the measured time."""

import types

import numpy as np
import pytest

from dreamer.run import plan
from dreamer.run.plan import (
    Estimate,
    describe,
    device_bytes,
    space_in_words,
    spaces_in_words,
)
from dreamer.settings import load
from dreamer.spaces import Space


def config(*flags):
    return load(["--configs", "atari100k", *flags, "--logdir", "unused"])


def agent(settings, dtype=np.float32, kind="image"):
    space = Space(kind, (64, 64, 3) if kind == "image" else (9,))
    return types.SimpleNamespace(
        config=settings.agent,
        obs_spaces={"x": space},
        action_space=Space("discrete", (), 6),
        dtype=np.dtype(dtype),
    )


def held(latent_bytes=4 * 10**9, exact=True, **sizes):
    return types.SimpleNamespace(
        latent_bytes=latent_bytes, exact=exact, **sizes
    )


def test_lines():
    settings = config()
    replay = held(capacity=110_000, bytes_per_step=28_723)
    params = {"a": np.zeros((1000, 1000)), "b": {"c": np.zeros(234_000)}}
    text = describe(settings, agent(settings), replay, params)
    lines = {x.split()[0]: " ".join(x.split()[1:]) for x in text.split("\n")}
    assert lines["task"] == "atari100k_pong, 1 environment, seed 0"
    assert lines["observes"] == "x: image 64 x 64 x 3; acts: one of 6"
    assert lines["length"] == "110,000 policy steps = 440,000 frames"
    assert lines["updates"] == (
        "27,229 on 16 x 64 time steps, one per 4 policy steps"
        " (train_ratio 256)"
    )
    assert lines["model"].startswith("1.2M parameters, float32 activations,")
    assert lines["replay"] == (
        "110,000 steps of 28.7 KB = 3.2 GB of RAM when full"
    )
    assert "resume" not in lines


def test_a_model_that_may_not_fit_into_the_ram_of_a_cpu(monkeypatch):
    settings = config()
    replay = held(capacity=1000, bytes_per_step=1_000_000)
    params = {"a": np.zeros((1000, 1000))}
    for free, warned in ((3.5e9, True), (10e9, False)):
        monkeypatch.setattr(plan, "available_ram", lambda free=free: free)
        text = describe(settings, agent(settings), replay, params)
        assert ("3.5 GB are free: the system may end" in text) == warned


def test_observations_and_actions_in_words():
    spaces = {
        "image": Space("image", (64, 64, 3)),
        "speed": Space("vector", (5,)),
        "discrete": Space("discrete", (), 3),
        "cards": Space("discrete", (2,), 7),
    }
    assert spaces_in_words(spaces) == (
        "image 64 x 64 x 3, speed: vector 5, one of 3, cards: 2 x one of 7"
    )
    assert spaces_in_words(spaces, most=1) == "image 64 x 64 x 3, and 3 more"
    assert space_in_words(Space("continuous", (2,))) == "2 numbers"
    assert space_in_words(Space("continuous", (1,))) == "1 number"


@pytest.mark.parametrize(
    ("exact", "text"),
    [
        (False, "--replay.exact always saves all 81.9 GB each time"),
        (True, "saves up to all 81.9 GB of latents again"),
    ],
)
def test_a_large_replay_says_what_checkpoints_cost(exact, text):
    settings = config()
    replay = held(81_920_000_000, exact, capacity=1, bytes_per_step=1)
    assert text in describe(settings, agent(settings), replay, {})


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--run.train_ratio", "4096"), "4 per policy step"),
        (("--run.train_ratio", "-1"), "1 per policy step"),
        (("--run.train_ratio", "0"), "0 per policy step"),
        (("--run.envs", "4"), "4 environments"),
    ],
)
def test_words(flags, text):
    settings = config(*flags)
    replay = held(capacity=1, bytes_per_step=1)
    assert text in describe(settings, agent(settings), replay, {})


@pytest.mark.parametrize(
    ("size", "params", "planned"),
    [("size1m", 686_456, 0.473e9), ("size12m", 10_492_616, 1.644e9)],
)
def test_device_memory_is_near_what_xla_planned(size, params, planned):
    # Of the compiled update on a CPU: arguments, temporaries and results.
    settings = load(["--configs", "atari100k", size, "--logdir", "unused"])
    estimate = device_bytes(agent(settings), settings, params, chunked=True)
    assert estimate == pytest.approx(planned, rel=0.03)


def test_device_memory_grows_with_what_needs_it():
    one = config()
    two = config("--batch_size", "32")
    base = device_bytes(agent(one), one, 0, chunked=False)
    assert device_bytes(agent(two), two, 0, False) == 2 * base
    assert device_bytes(agent(one, np.float16), one, 0, False) == base / 2
    assert device_bytes(agent(one), one, 1000, False) == base + 20_000
    without_images = device_bytes(agent(one, kind="vector"), one, 0, False)
    assert without_images < device_bytes(agent(one), one, 0, True) < base


def told(updates, total=1000, done=0):
    """The lines of a run whose n-th call comes at n seconds."""
    seconds = iter(range(len(updates)))
    now = None
    estimate = Estimate(total, done, clock=lambda: now)
    lines = {}
    for made in updates:
        now = next(seconds)
        if line := estimate.line(made):
            lines[now] = line
    return lines


def test_time_is_told_once_after_the_first_updates():
    # Four steps per update; updates 1 and 2, which compile, do not count.
    lines = told([n // 4 for n in range(100)])
    assert lines == {
        28: "  time     4 s per update and its policy steps, 993 updates to"
        " go: about 1:06:12"
    }


def test_time_of_a_run_that_continues_or_makes_many_updates_a_step():
    assert list(told([500 + n for n in range(20)], done=500)) == [7]
    assert "0.25 s per update" in told([4 * n for n in range(20)])[3]


def test_no_time_where_there_are_no_updates():
    assert told([0] * 50) == {}
