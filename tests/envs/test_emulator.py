"""Saved Atari games: what follows is the same, whatever process goes on."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from dreamer.config import AtariConfig
from dreamer.envs.atari import Atari
from dreamer.envs.blob import pack, unpack
from tests.envs.test_atari import RGB

SAVED = {
    "pong": ("pong", RGB),
    "sticky": ("ms_pacman", AtariConfig(sticky=0.9)),
    "scrolling": ("enduro", RGB),
    "lives": ("breakout", dataclasses.replace(RGB, lives="reset")),
    "discount": ("seaquest", dataclasses.replace(RGB, lives="discount")),
    "short": ("boxing", dataclasses.replace(RGB, length=301)),
    "one frame": ("asteroids", dataclasses.replace(RGB, repeat=1)),
    "many no-ops": ("skiing", dataclasses.replace(RGB, noops=300)),
    # The emulator's own serialisation does not restore these.
    "qbert": ("qbert", RGB),
    "yars_revenge": ("yars_revenge", RGB),
}


def go_on(env, steps, seed):
    """Everything that random steps bring; resets at ends, and after 70."""
    rng = np.random.default_rng(seed)
    rows = []
    for count in range(steps):
        obs, *rest = env.step(int(rng.integers(env.action_space.n)))
        rows.append((obs["image"].tobytes(), *rest, env._lives))
        if rest[1] or rest[2] or count == 70:
            rows.append((env.reset()[0]["image"].tobytes(), env._lives))
    return rows


@pytest.mark.parametrize("name", SAVED)
def test_goes_on_as_if_never_interrupted(name):
    game, config = SAVED[name]
    env = Atari(game, config, seed=7)
    env.reset()
    for count, steps in enumerate((0, 1, 2, 150)):
        go_on(env, steps, count)
        blob = env.get_state()
        fresh = Atari(game, config, seed=8)
        if count % 2:  # one that is used makes no difference
            fresh.reset()
            go_on(fresh, 20, 9)
        fresh.set_state(blob)
        assert fresh.get_state() == blob
        for name in ("_lives", "_frames", "_sticky_action"):
            assert getattr(fresh, name) == getattr(env, name)
        assert go_on(env, 130, count) == go_on(fresh, 130, count)
        assert env.get_state() == fresh.get_state()


def test_saved_at_the_end_of_an_episode_and_before_any():
    config = dataclasses.replace(RGB, length=50)
    env, fresh = (Atari("qbert", config, seed) for seed in (0, 1))
    fresh.set_state(env.get_state())
    for _ in range(3):
        starts = [e.reset()[0]["image"].tobytes() for e in (env, fresh)]
        assert starts[0] == starts[1]
        assert go_on(env, 5, 0) == go_on(fresh, 5, 0)
        while not env.step(1)[3]:
            pass
        fresh = Atari("qbert", config, seed=2)
        fresh.set_state(env.get_state())


def test_saving_changes_nothing():
    one, two = (Atari("breakout", AtariConfig(), seed=0) for _ in range(2))
    one.reset(), two.reset()
    for count in range(20):
        one.get_state()
        assert go_on(one, 10, count) == go_on(two, 10, count)


def test_a_saved_environment_is_small():
    env = Atari("pong", AtariConfig(), seed=0)
    env.reset()
    go_on(env, 1000, 0)
    assert len(env.get_state()) < 10_000


def refused(env, blob):
    with pytest.raises(ValueError) as caught:
        env.set_state(blob)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_state_is_refused():
    env = Atari("pong", dataclasses.replace(RGB, noops=5), seed=0)
    env.reset()
    go_on(env, 20, 0)
    blob = env.get_state()
    rng = np.random.default_rng(0)
    for _ in range(200):
        bad = bytearray(blob)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        # Some bits of a zip file mean nothing; all others are noticed.
        with contextlib.suppress(ValueError):
            env.set_state(bytes(bad))
            assert env.get_state() == blob
    for size in (0, 1, 22, len(blob) // 2, len(blob) - 1):
        refused(env, blob[:size])
    refused(env, bytes(1000))


def test_what_is_a_state_of_something_else_is_refused():
    config = dataclasses.replace(RGB, noops=5)
    env = Atari("pong", config, seed=0)
    env.reset()
    go_on(env, 20, 0)
    facts, arrays = unpack(env.get_state())

    def other(**changes):
        new = {**facts, **changes}
        return pack(
            {key: new[key] for key in facts},
            **{key: new.get(key, value) for key, value in arrays.items()},
        )

    played = arrays["played"]
    env.set_state(other())
    assert "does not come out" in refused(env, other(played=played[1:]))
    frames = facts["frames"]
    for changes in (
        {"frames": -1},
        {"frames": str(frames)},
        {"frames": frames + 1000},
        {"frames": frames - 6},
        {"rng": {}},
        {"rng": {**facts["rng"], "bit_generator": "MT19937"}},
        {"rng": {**facts["rng"], "state": None}},
        {"played": np.full_like(played, 18)},
        {"played": played.astype(np.int64)},
        {"played": played[None]},
        {"ram": arrays["ram"][:-1]},
        {"random": arrays["random"][:-1]},
        {"random": arrays["random"].astype(np.float32)},
        {"digest": arrays["digest"][1:]},
        {"digest": np.array(["x" * 32])},
    ):
        refused(env, other(**changes))
    for missing in arrays:
        kept = {k: v for k, v in arrays.items() if k != missing}
        refused(env, pack(facts, **kept))
    breakout = Atari("breakout", config, seed=0)
    breakout.reset()
    refused(env, breakout.get_state())
    # All of that leaves an environment that can be reset.
    env.reset()
    go_on(env, 5, 0)


def test_a_state_with_a_pickle_in_it_is_refused(tmp_path):
    path = tmp_path / "state.npz"

    class Boom:
        def __reduce__(self):
            return (path.with_suffix(".boom").touch, ())

    facts = np.frombuffer(json.dumps({}).encode(), np.uint8)
    np.savez(path, facts=facts, played=np.array([Boom()]))
    with pytest.raises(ValueError, match="pickle"):
        unpack(path.read_bytes())
    assert not path.with_suffix(".boom").exists()
    with pytest.raises(ValueError, match="Object arrays"):
        pack({}, played=np.array([Boom()]))
