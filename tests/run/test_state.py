"""What a run is built from: seeds after a resume, and the replay's size."""

import types

import pytest

from dreamer.config import load
from dreamer.run import state
from dreamer.run.state import make_replay, with_fresh_episodes
from tests.run import tiny


def config(*flags):
    return load(["--configs", "debug", *flags, "--logdir", "unused"])


def test_seeds_of_environments():
    fresh = {
        (seed, steps): with_fresh_episodes(
            config("--seed", str(seed)), steps
        ).seed
        for seed in (0, 1)
        for steps in (0, 100, 200)
    }
    assert fresh[0, 0] == 0
    assert fresh[1, 0] == 1
    assert len(set(fresh.values())) == 6
    assert with_fresh_episodes(config(), 100).seed == fresh[0, 100]
    assert with_fresh_episodes(config(), 100).run == config().run


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


def test_a_replay_that_does_not_fit_is_not_made(monkeypatch):
    made = []

    def refuse(capacity, each):
        made.append((capacity, each))
        raise ValueError("too much")

    monkeypatch.setattr(state, "fits_in_ram", refuse)
    monkeypatch.setattr(state, "Replay", types.SimpleNamespace)
    with pytest.raises(ValueError, match="too much"):
        make_replay(config(), tiny.Envs(), tiny.Agent(), 0)
    # Observation, reward, three flags, action; deter and stoch.
    assert made == [(300, 8 + 4 + 3 + 4 + 6 + 2)]
