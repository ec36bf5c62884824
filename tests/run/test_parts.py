"""What a run is built from: the replay's size, a checkpoint's contents."""

import types

import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.run import parts
from dreamer.run.parts import check_complete, make_replay
from dreamer.settings import load
from tests.run import tiny


def config(*flags):
    return load(["--configs", "debug", *flags, "--logdir", "unused"])


@pytest.mark.parametrize(
    ("flags", "policy_steps", "capacity"),
    [
        (["--replay.size", "100"], 0, 100),
        (["--replay.size", "101"], 0, 102),  # two environments
        (["--run.steps", "250"], 0, 250),  # not the 1000 of replay.size
        (["--run.steps", "5"], 0, 18),  # a window of each environment
        (["--run.steps", "250"], 400, 400),  # ended early, reopened
    ],
)
def test_capacity(flags, policy_steps, capacity):
    args = (config(*flags), tiny.Envs(), tiny.Agent(), policy_steps)
    assert make_replay(*args).capacity == capacity


@pytest.mark.parametrize(
    ("flags", "most", "exact"),
    [
        ([], 300 * 8, True),  # six bytes of deter and two of stoch
        ([], 300 * 8 - 1, False),
        (["--replay.exact", "always"], 0, True),
        (["--replay.exact", "never"], 300 * 8, False),
    ],
)
def test_a_small_replay_is_saved_exactly(monkeypatch, flags, most, exact):
    monkeypatch.setattr(parts, "EXACT_BYTES", most)
    replay = make_replay(config(*flags), tiny.Envs(), tiny.Agent(), 0)
    assert replay.exact is exact
    assert replay.latent_bytes == 300 * 8


def test_a_replay_that_does_not_fit_is_not_made(monkeypatch):
    made = []

    def refuse(*given):
        made.append(given)
        raise ConfigError("too much")

    monkeypatch.setattr(parts, "fits_in_ram", refuse)
    monkeypatch.setattr(parts, "Replay", types.SimpleNamespace)
    with pytest.raises(ConfigError, match="too much"):
        make_replay(config(), tiny.Envs(), tiny.Agent(), 0, 3)
    # Observation, reward, three flags, action; deter and stoch.
    beside = parts.REST_BYTES + 300 * (6 + 2)
    assert made == [(300, 8 + 4 + 3 + 4 + 6 + 2, beside, 3)]


@pytest.mark.parametrize("missing", ["envs", "driver", "owed", "ratio"])
def test_a_checkpoint_that_lacks_something(missing):
    arrays = {"learner": {}, "driver": {}, "envs": {}}
    counters = {"policy_steps": 1, "ratio": {}, "asked": 1, "owed": 0}
    check_complete(arrays, counters)
    (arrays if missing in arrays else counters).pop(missing)
    with pytest.raises(ConfigError, match=f"it lacks {missing}"):
        check_complete(arrays, counters)


@pytest.mark.parametrize("online", [True, False])
def test_what_is_set_of_the_draws_reaches_the_replay(online):
    flags = ["--replay.online", str(online), "--seed", "5"]
    replay = make_replay(config(*flags), tiny.Envs(), tiny.Agent(), 0)
    assert replay.online is online
    assert replay._rng.bit_generator.state == np.random.PCG64(5).state
