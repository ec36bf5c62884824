"""Dreams: what is seen, what is predicted, and from what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.agent import dream as dreams
from dreamer.agent.dream import CONTEXT, LENGTH, context, dream, reconstruct
from tests.agent.tiny import (
    BUTTONS,
    JOINTS,
    MIXED,
    awake,
    tiny_agent,
    tiny_batch,
)

LONG = CONTEXT + 3
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def agent():
    return tiny_agent(MIXED, BUTTONS)


@pytest.fixture(scope="module")
def params(agent):
    return awake(agent.init(0).params)


def whole_episode(agent, length=LONG, seed=0):
    """A batch without a border between episodes."""
    batch = tiny_batch(agent, length=length, seed=seed)
    for key in ("is_first", "is_last", "is_terminal"):
        batch[key] = jnp.zeros_like(batch[key]).at[:, 0].set(key == "is_first")
    return batch


def test_context_is_the_beginning_of_the_window_and_of_episodes():
    is_first = np.zeros((3, 13), bool)
    is_first[1, 7] = True
    is_first[2, [0, 2]] = True
    expected = ["SSSSS........", "SSSSS..SSSSS.", "SSSSSSS......"]
    seen = np.asarray(context(jnp.asarray(is_first)))
    assert ["".join(".S"[int(x)] for x in row) for row in seen] == expected


def test_all_steps_seen_is_what_training_observes(agent, params):
    nets = agent.networks(params)
    batch = tiny_batch(agent, length=LONG)
    obs, carry, prev_action = agent.split_context(batch)
    everything = jnp.ones_like(obs["is_first"])
    states = dreams.open_loop(
        nets.world, carry, obs, prev_action, everything, KEY
    )
    tokens = nets.world.encoder(obs)
    expected, _ = nets.world.rssm.observe(
        carry, tokens, prev_action, obs["is_first"], KEY
    )
    np.testing.assert_allclose(states.deter, expected.deter, atol=1e-5)
    np.testing.assert_array_equal(states.stoch, expected.stoch)


def images_of(agent, params, batch, key=KEY):
    return jax.device_get(dream(agent, params, batch, key))


def test_nothing_is_seen_after_the_context(agent, params):
    batch, other = (whole_episode(agent, seed=seed) for seed in (0, 1))
    spaces = agent.obs_spaces
    first = agent.context + CONTEXT  # not seen, and all after it
    blind = batch | {
        k: batch[k].at[:, first:].set(other[k][:, first:]) for k in spaces
    }
    late = batch | {
        k: batch[k].at[:, first - 1].set(other[k][:, first - 1])
        for k in spaces
    }
    a, b, c = (images_of(agent, params, x) for x in (batch, blind, late))
    assert a.seen[0].tolist() == [True] * CONTEXT + [False] * 3
    jax.tree.map(np.testing.assert_array_equal, a.model, b.model)
    jax.tree.map(np.testing.assert_array_equal, a.rollout, b.rollout)
    for key in a.model:
        assert np.array_equal(a.truth[key], batch[key][:, agent.context :])
        assert not np.array_equal(a.truth[key], b.truth[key])
        same = a.model[key] == c.model[key]
        assert same[:, : CONTEXT - 1].all()
        assert not same[:, CONTEXT - 1 :].all(axis=(2, 3, 4)).any()


def test_actions_that_were_taken_count(agent, params):
    batch = whole_episode(agent)
    at = agent.context + CONTEXT  # the action after the second unseen step
    changed = (batch["action"] + 1) % BUTTONS.classes
    other = batch | {"action": batch["action"].at[:, at].set(changed[:, at])}
    a, b = (images_of(agent, params, x) for x in (batch, other))
    for key in a.model:
        same = (a.model[key] == b.model[key]).all(axis=(0, 2, 3, 4))
        assert same.tolist() == [True] * (CONTEXT + 1) + [False] * 2
    # The actor chooses its own.
    jax.tree.map(np.testing.assert_array_equal, a.rollout, b.rollout)


def test_a_new_episode_is_seen_again(agent, params):
    batch = whole_episode(agent)
    last = agent.context + LONG - 1
    batch["is_first"] = batch["is_first"].at[:, last].set(True)
    # Nothing of before is left.
    other = batch | {"deter": -batch["deter"], "stoch": batch["stoch"] ^ 1}
    a, b = (images_of(agent, params, x) for x in (batch, other))
    assert a.seen[0].tolist() == [True] * CONTEXT + [False] * 2 + [True]
    for key in a.model:
        same = (a.model[key] == b.model[key]).all(axis=(0, 2, 3, 4))
        assert not same[0]
        assert same[-1]


@pytest.mark.parametrize("action", [BUTTONS, JOINTS])
def test_the_rollout_begins_with_the_last_seen_step(action):
    agent = tiny_agent(MIXED, action)
    params = awake(agent.init(0).params)
    result = images_of(agent, params, whole_episode(agent))
    for key, space in MIXED.items():
        assert (key in result.model) == (space.kind == "image")
        if space.kind == "image":
            images = result.rollout.images[key]
            assert images.shape == (2, LONG, *space.shape)
            assert images.dtype == np.uint8
            last_seen = result.model[key][:, CONTEXT - 1]
            np.testing.assert_array_equal(images[:, 0], last_seen)
            assert not np.array_equal(images[:, 0], images[:, -1])
    for x in (result.rollout.reward, result.rollout.value):
        assert x.shape == (2, LONG)
        assert np.isfinite(x).all()
        assert np.ptp(x) > 0
    ends = result.rollout.ends
    assert ((ends >= 0) & (ends <= 1)).all()
    assert np.ptp(ends) > 0


def test_certain_to_go_on_is_no_end(agent, params):
    """The continue head predicts the discount with it; `ends` does not."""
    head = params["world"]["continue_head"]
    sure = jax.tree.map(jnp.zeros_like, head)
    discount = 1 - 1 / agent.config.horizon
    logit = float(np.log(discount / (1 - discount)))
    leaves = jax.tree.leaves_with_path(sure)
    (path,) = [p for p, x in leaves if x.shape == (1,)]
    sure = jax.tree.map_with_path(
        lambda p, x: x + logit if p == path else x, sure
    )
    world = params["world"] | {"continue_head": sure}
    result = images_of(agent, params | {"world": world}, whole_episode(agent))
    np.testing.assert_allclose(result.rollout.ends, 0, atol=1e-5)


def test_keys_decide(agent, params):
    batch = whole_episode(agent)
    a, b, c = (
        images_of(agent, params, batch, key)
        for key in (KEY, KEY, jax.random.key(4))
    )
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(a.model["camera"], c.model["camera"])


def test_reconstructions_are_of_stored_states(agent, params):
    batch = tiny_batch(agent)
    images = reconstruct(agent, params, batch["deter"], batch["stoch"])
    nets = agent.networks(params)
    state = agent.stored_state(batch["deter"], batch["stoch"])
    pixels = nets.world.decoder.decode_images(state.deter, state.flat_stoch)
    assert list(images) == ["camera", "depth"]
    both = np.concatenate([images[key] for key in images], -1)
    assert both.dtype == np.uint8
    np.testing.assert_allclose(both, pixels * 255, atol=0.51)
    assert np.ptp(both) > 10


def test_without_images_there_is_nothing_to_reconstruct():
    agent = tiny_agent()
    batch = tiny_batch(agent)
    params = agent.init(0).params
    assert reconstruct(agent, params, batch["deter"], batch["stoch"]) == {}


@pytest.mark.parametrize("length", [2, CONTEXT, LENGTH + 2])
def test_windows_of_any_length(agent, params, length):
    result = jax.eval_shape(
        lambda: dream(agent, params, tiny_batch_of(agent, length), KEY)
    )
    steps = min(length, LENGTH)
    assert result.seen.shape == (2, steps)
    assert result.truth["depth"].shape == (2, steps, 16, 16, 1)
    assert result.model["depth"].shape == (2, steps, 16, 16, 1)
    assert result.rollout.images["depth"].shape[1] == steps


def tiny_batch_of(agent, length):
    batch = tiny_batch(agent, length=4)
    latents = {k: batch.pop(k) for k in ("deter", "stoch")}
    steps = agent.context + length
    fields = {
        k: jnp.resize(x, (x.shape[0], steps, *x.shape[2:]))
        for k, x in batch.items()
    }
    return fields | latents


def test_rewards_and_values_are_those_of_their_heads(agent, params):
    batch, world = whole_episode(agent), params["world"]

    def without(head, tree):
        return tree | {head: jax.tree.map(jnp.zeros_like, tree[head])}

    unrewarding = params | {"world": without("reward_head", world)}
    rollout = images_of(agent, unrewarding, batch).rollout
    assert (rollout.reward.any(), rollout.value.any()) == (False, True)
    rollout = images_of(agent, without("critic", params), batch).rollout
    assert (rollout.reward.any(), rollout.value.any()) == (True, False)
