"""The whole agent on tiny spaces: learning, acting, and their contracts."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dreamer.agent.rssm import State
from dreamer.spaces import Space
from tests.agent.tiny import (
    BUTTONS,
    JOINTS,
    MIXED,
    VECTOR,
    awake,
    tiny_agent,
    tiny_batch,
    use_argmax,
)

ROOT = Path(__file__).resolve().parents[2]
KEY = jax.random.key(0)
FAST = {"opt.lr": 1e-2, "opt.warmup": 10}
ONE_IMAGE = {k: space for k, space in MIXED.items() if k != "camera"}


@pytest.fixture(scope="module")
def mixed():
    """Learns from an image, a vector and two kinds of discrete."""
    return tiny_agent(ONE_IMAGE, BUTTONS, FAST)


@pytest.fixture(scope="module")
def walker():
    """Learns continuous actions from a vector."""
    return tiny_agent(VECTOR, JOINTS, FAST)


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def learn(agent, updates, seed=0, key=KEY):
    """State after updates on one batch, and the metrics of every update."""
    state, batch, history = agent.init(seed), tiny_batch(agent), []
    for _ in range(updates):
        state, latents, metrics = agent.update(state, batch, key)
        history.append(metrics)
    return state, latents, jax.device_get(history)


def step_obs(agent, envs=2, seed=0):
    """Observations of one step, (N, ...)."""
    batch = tiny_batch(agent, envs, seed=seed)
    keys = [*agent.obs_spaces, "is_first"]
    return {k: batch[k][:, 0] for k in keys}


# Learning


@pytest.mark.parametrize("name", ["mixed", "walker"])
def test_overfits_one_batch(name, request):
    agent = request.getfixturevalue(name)
    state, _, history = learn(agent, 150)
    for metrics in history:
        assert all(np.isfinite(x) for x in metrics.values()), metrics
    first, last = history[0], history[-1]
    for key in [*agent.obs_spaces, "rew", "value"]:
        start, end = first[f"loss/{key}"], last[f"loss/{key}"]
        # Images of noise take long to learn by heart.
        limit = 0.8 if key == "depth" else 0.5
        assert end < limit * start, (key, start, end)
    assert last["loss/con"] < 0.4 < first["loss/con"]
    assert state.updates == 150


def test_first_update_has_rate_zero_and_moves_nothing(walker):
    before = bits(walker.init(0).params)
    state, _, history = learn(walker, 1)
    assert bits(state.params) == before
    assert history[0]["opt/update_rms"] == 0
    assert history[0]["opt/grad_norm"] > 0
    state, _, _ = learn(walker, 2)
    assert bits(state.params) != before


def test_same_seed_same_bits(walker):
    first, second = learn(walker, 3), learn(walker, 3)
    assert bits(first) == bits(second)


FRESH = """
import hashlib, jax
from tests.agent.test_agent import FAST, bits, learn
from tests.agent.tiny import JOINTS, VECTOR, tiny_agent

results = learn(tiny_agent(VECTOR, JOINTS, FAST), 2)
print(hashlib.sha256(b"".join(bits(results))).hexdigest())
"""


def test_same_seed_same_bits_in_another_process(walker):
    settings = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # as here, see conftest.py
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    here = hashlib.sha256(b"".join(bits(learn(walker, 2)))).hexdigest()
    assert fresh.stdout.split() == [here]


def test_another_seed_or_key_is_another_run(walker):
    state, latents, _ = learn(walker, 3)
    other, _, _ = learn(walker, 3, seed=1)
    assert bits(other.params) != bits(state.params)
    other, other_latents, _ = learn(walker, 3, key=jax.random.key(1))
    assert bits(other.params) != bits(state.params)
    assert bits(other_latents["stoch"]) != bits(latents["stoch"])


def test_every_update_draws_anew_from_the_same_key(walker):
    batch = tiny_batch(walker)
    state, first, _ = walker.update(walker.init(0), batch, KEY)
    # The first update changes no parameter: only the draws differ.
    _, second, _ = walker.update(state, batch, KEY)
    assert bits(first["stoch"]) != bits(second["stoch"])


def test_update_consumes_its_state(walker):
    state = walker.init(0)
    new, _, _ = walker.update(state, tiny_batch(walker), KEY)
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.opt_state[1].mu))
    assert not any(x.is_deleted() for x in jax.tree.leaves(new))


def not_a_number(batch):
    return batch | {"position": batch["position"].at[1, 2, 0].set(jnp.nan)}


def infinite(batch):
    return batch | {"reward": batch["reward"].at[0, 3].set(jnp.inf)}


def test_one_action_is_no_choice_and_no_trouble():
    agent = tiny_agent(VECTOR, Space("discrete", (), 1))
    _, _, (metrics,) = learn(agent, 1)
    assert metrics["rand/action"] == 0
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("spoil", [not_a_number, infinite])
def test_an_update_without_finite_numbers_is_not_applied(walker, spoil):
    state, _, history = learn(walker, 12)
    assert not any(metrics["opt/nonfinite"] for metrics in history)
    copy = jax.tree.map(jnp.copy, state)
    before = bits(state.replace(updates=0))
    params = bits(state.params)
    state, _, metrics = walker.update(state, spoil(tiny_batch(walker)), KEY)
    assert metrics["opt/nonfinite"] == 1
    assert not np.isfinite(metrics["opt/loss"])
    assert bits(state.replace(updates=0)) == before
    assert state.updates == 13

    # It leaves no trace but in the random numbers of the next one.
    expected = copy.replace(updates=jnp.int32(13))
    results = [
        walker.update(x, tiny_batch(walker), KEY) for x in (state, expected)
    ]
    assert bits(results[0]) == bits(results[1])
    assert bits(results[0][0].params) != params


def test_a_gradient_that_is_not_finite_is_not_applied():
    agent = tiny_agent(VECTOR, JOINTS, FAST | {"opt.warmup": 0})
    original = agent.loss

    def loss(params, **kw):
        total, aux = original(params, **kw)
        zero = 0 * jax.tree.leaves(params["critic"])[0].sum()
        return total + jnp.sqrt(zero), aux

    agent.loss = loss
    state = agent.init(0)
    before = bits(state.replace(updates=0))
    state, _, metrics = agent.update(state, tiny_batch(agent), KEY)
    assert np.isfinite(metrics["opt/loss"])
    assert np.isnan(metrics["opt/grad_norm"])
    assert metrics["opt/nonfinite"] == 1
    assert bits(state.replace(updates=0)) == before
    assert state.updates == 1


def test_slow_critic_starts_as_a_copy_and_follows_at_its_rate(walker):
    state = walker.init(0)
    assert bits(state.slow_critic) == bits(state.params["critic"])
    state, _, _ = learn(walker, 20)
    before = jax.device_get(state.slow_critic)
    state, _, _ = walker.update(state, tiny_batch(walker), KEY)
    moved = jax.tree.map(
        lambda old, critic: 0.98 * old + 0.02 * np.asarray(critic),
        before,
        state.params["critic"],
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        jax.device_get(state.slow_critic),
        moved,
    )


def test_latents_are_as_declared(mixed, walker):
    for agent in (mixed, walker):
        state = agent.state_shapes
        batch = tiny_batch(agent, 2, 4)
        _, latents, _ = jax.eval_shape(agent.update, state, batch, KEY)
        assert latents.keys() == agent.latents.keys()
        for name, (shape, dtype) in agent.latents.items():
            assert latents[name].shape == (2, 4, *shape)
            assert latents[name].dtype == dtype
    assert walker.latents == {
        "deter": ((16,), np.dtype(np.float32)),
        "stoch": ((3,), np.dtype(np.uint8)),
    }
    large = tiny_agent(changes={"dyn.rssm.classes": 257})
    assert large.latents["stoch"][1] == np.uint16


def test_bfloat16_keeps_parameters_and_losses_in_float32():
    agent = tiny_agent(VECTOR, JOINTS, dtype=jnp.bfloat16)
    state, latents, history = learn(agent, 1)
    assert latents["deter"].dtype == ml_dtypes.bfloat16
    assert agent.latents["deter"][1] == ml_dtypes.bfloat16
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
    for name, value in history[0].items():
        assert np.isfinite(value), name
        assert value.dtype == np.float32 or name == "opt/updates"


@pytest.mark.parametrize("context", [1, 3])
def test_context_is_split_from_what_is_trained(context):
    agent = tiny_agent(context=context)
    batch = tiny_batch(agent, 2, 4)
    obs, carry, prev_action = agent.split_context(batch)
    assert obs.keys() == {
        "position",
        "reward",
        "is_first",
        "is_last",
        "is_terminal",
    }
    for name, x in obs.items():
        np.testing.assert_array_equal(x, batch[name][:, context:])
    # Into the first trained step led the action of the last context step.
    expected = np.eye(4)[batch["action"][:, context - 1 : context + 3]]
    np.testing.assert_array_equal(prev_action, expected)
    np.testing.assert_array_equal(carry.deter, batch["deter"])
    np.testing.assert_array_equal(carry.stoch.argmax(-1), batch["stoch"])
    assert carry.stoch.shape == (2, 3, 4)


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("action", [BUTTONS, JOINTS])
def test_shapes_hold_for_every_kind_of_space(action, context):
    agent = tiny_agent(MIXED, action, context=context, dtype=jnp.bfloat16)
    state = agent.state_shapes
    batch = tiny_batch(agent, 2, 5)
    new, latents, metrics = jax.eval_shape(agent.update, state, batch, KEY)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert latents["deter"].shape == (2, 5, 16)
    assert all(x.shape == () for x in metrics.values())
    losses = {k[5:] for k in metrics if k.startswith("loss/")}
    others = {"rew", "con", "dyn", "rep", "policy", "value", "repval"}
    assert losses == others | MIXED.keys()


def test_every_observation_has_the_scale_of_reconstruction():
    agent = tiny_agent(MIXED, BUTTONS, {"loss_scales.rec": 0.25})
    assert {agent.loss_scale(k) for k in MIXED} == {0.25}
    defaults = dict(rew=1, con=1, dyn=1, rep=0.1, policy=1, value=1)
    for name, scale in (defaults | {"repval": 0.3}).items():
        assert agent.loss_scale(name) == scale


def test_observations_called_like_a_loss_are_learned_from():
    names = ("policy", "rep", "rec", "plain")
    agent = tiny_agent({x: Space("vector", (3,)) for x in names}, BUTTONS)
    state, batch = agent.init(0), tiny_batch(agent)
    grads, (_, metrics, _) = jax.grad(agent.loss, has_aux=True)(
        state.params, state=state, batch=batch, key=KEY
    )
    heads = grads["world"]["decoder"]["heads"]
    for name in names:
        assert jnp.abs(heads[name]["kernel"]).max() > 0, name
    others = {"rew", "con", "dyn", "rep", "policy", "value", "repval"}
    recs = {"rec/policy", "rec/rep", "rec", "plain"}
    assert {x[5:] for x in metrics if x.startswith("loss/")} == others | recs
    assert {agent.loss_scale(x) for x in recs} == {1.0}
    assert agent.loss_scale("rep") == 0.1


# Who learns from what


@pytest.fixture(scope="module")
def loss_gradients():
    """Function from a loss's name to the largest gradient by module."""
    agent = tiny_agent()
    names = [f.name for f in dataclasses.fields(agent.config.loss_scales)]
    state = agent.state_from(awake(agent.init(0).params))
    batch = tiny_batch(agent)

    def loss(params, scales):
        others = tiny_agent()
        values = dict(zip(names, scales, strict=True))
        others.loss_scale = lambda name: values.get(name, values["rec"])
        return others.loss(params, state=state, batch=batch, key=KEY)[0]

    grad = jax.jit(jax.grad(loss))

    def largest(name):
        scales = jnp.array([float(n == name) for n in names])
        grads = grad(state.params, scales)
        modules = grads.pop("world") | grads
        return {
            name: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))
            for name, tree in modules.items()
        }

    return largest


@pytest.mark.parametrize(
    ("loss", "learners"),
    [
        ("policy", {"actor"}),
        ("value", {"critic"}),
        ("repval", {"critic", "encoder", "rssm"}),
        ("rew", {"reward_head", "encoder", "rssm"}),
        ("con", {"continue_head", "encoder", "rssm"}),
        ("rec", {"decoder", "encoder", "rssm"}),
        ("dyn", {"encoder", "rssm"}),
        ("rep", {"encoder", "rssm"}),
    ],
)
def test_only_these_modules_learn_from(loss, learners, loss_gradients):
    largest = loss_gradients(loss)
    assert {name for name, grad in largest.items() if grad} == learners


def test_nothing_flows_back_through_continuous_actions():
    agent = tiny_agent(VECTOR, JOINTS)
    state = agent.state_from(awake(agent.init(0).params))
    agent.loss_scale = lambda name: float(name == "value")
    given = dict(state=state, batch=tiny_batch(agent), key=KEY)
    grad = jax.jit(jax.grad(lambda params: agent.loss(params, **given)[0]))
    reached = {
        name
        for name, tree in grad(state.params).items()
        if any(x.any() for x in jax.tree.leaves(tree))
    }
    assert reached == {"critic"}


# Acting


def test_acting_is_observing(monkeypatch):
    """Step by step, the policy's states are those that updates compute."""
    use_argmax(monkeypatch)
    agent = tiny_agent(VECTOR, BUTTONS)
    params = awake(agent.init(0).params)
    envs, steps = 2, 6
    batch = tiny_batch(agent, envs, steps - 1)
    carry, actions, deter, stoch = agent.initial_carry(envs), [], [], []
    for t in range(steps):
        obs = {k: batch[k][:, t] for k in ("position", "is_first")}
        carry, action = agent.policy(params, carry, obs, KEY, jnp.int32(t))
        np.testing.assert_array_equal(carry.prev_action, action)
        actions.append(action)
        deter.append(carry.deter)
        stoch.append(carry.stoch)
    assert len({tuple(a.tolist()) for a in actions}) > 1

    # An update that starts from the state stored with step 0.
    stored = dict(deter=deter[0], stoch=stoch[0])
    batch |= stored | {"action": jnp.stack(actions, 1)}
    _, latents, _ = agent.update(agent.state_from(params), batch, KEY)
    deter, stoch = np.stack(deter[1:], 1), np.stack(stoch[1:], 1)
    np.testing.assert_allclose(latents["deter"], deter, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(latents["stoch"], stoch)


def test_policy_forgets_at_is_first(mixed):
    params = awake(mixed.init(0).params)
    obs = step_obs(mixed) | {"is_first": jnp.array([True, False])}
    fresh = mixed.initial_carry(2)
    used = fresh._replace(
        deter=fresh.deter + 0.5,
        stoch=fresh.stoch + 1,
        prev_action=fresh.prev_action + 2,
    )
    step = jnp.int32(0)
    (first, _), (second, _) = (
        mixed.policy(params, carry, obs, KEY, step) for carry in (fresh, used)
    )
    np.testing.assert_array_equal(first.deter[0], second.deter[0])
    assert (np.abs(first.deter[1] - second.deter[1]) > 1e-3).any()


def test_policy_draws_by_key_and_step_alone(mixed):
    params, obs = mixed.init(0).params, step_obs(mixed, 16)
    carry = mixed.initial_carry(16)

    def act(key, step):
        return mixed.policy(params, carry, obs, key, jnp.int32(step))

    assert bits(act(KEY, 3)) == bits(act(KEY, 3))
    assert bits(act(KEY, 3)[1]) != bits(act(KEY, 4)[1])
    assert bits(act(KEY, 3)[1]) != bits(act(jax.random.key(1), 3)[1])
    assert len(set(act(KEY, 3)[1].tolist())) > 1


def test_state_and_action_are_drawn_with_keys_of_their_own(monkeypatch):
    keys, draw = [], jax.random.categorical

    def note(key, logits, axis=-1):
        keys.append(jax.random.key_data(key).tolist())
        return draw(key, logits, axis)

    agent = tiny_agent()
    params, carry = agent.init(0).params, agent.initial_carry(2)
    monkeypatch.setattr(jax.random, "categorical", note)
    with jax.disable_jit():
        agent.policy(params, carry, step_obs(agent), KEY, jnp.int32(0))
    first, second = keys
    assert first != second


@pytest.mark.parametrize("name", ["mixed", "walker"])
def test_actions_look_like_the_action_space(name, request):
    agent = request.getfixturevalue(name)
    space = agent.action_space
    params, obs = agent.init(0).params, step_obs(agent)
    carry = agent.initial_carry(2)
    for x, (shape, dtype) in zip(carry, agent.latents.values(), strict=False):
        assert x.shape == (2, *shape)
        assert x.dtype == dtype
    carry, action = agent.policy(params, carry, obs, KEY, jnp.int32(0))
    assert action.shape == (2, *space.shape)
    assert action.dtype == space.dtype
    assert np.isfinite(action).all()
    assert carry.prev_action.dtype == space.dtype


def test_mode_takes_the_likeliest_action(walker):
    params, obs = awake(walker.init(0).params), step_obs(walker)
    carry, step = walker.initial_carry(2), jnp.int32(0)
    new, mode = walker.policy(params, carry, obs, KEY, step, greedy=True)
    nets = walker.networks(params)
    onehot = jax.nn.one_hot(new.stoch, walker.config.dyn.rssm.classes)
    expected = nets.actor(State(new.deter, onehot).feat).mean
    np.testing.assert_allclose(mode, expected, rtol=1e-4, atol=1e-5)
    _, sample = walker.policy(params, carry, obs, KEY, step)
    assert (np.abs(sample - mode) > 1e-6).all()


# Starting values


def test_shapes_are_those_of_what_init_gives_and_draw_nothing(monkeypatch):
    agent = tiny_agent(MIXED, JOINTS)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), agent.init(0)
    )
    monkeypatch.setattr(agent, "build", None)
    assert agent.state_shapes == shapes


def test_init_by_seed():
    agent = tiny_agent()
    assert bits(agent.init(0)) == bits(agent.init(0))
    assert bits(agent.init(0).params) != bits(agent.init(1).params)


def test_rewards_and_values_start_at_zero_and_actions_nearly_uniform():
    agent = tiny_agent()
    nets = agent.networks(agent.init(0).params)
    feat = jnp.asarray(np.random.default_rng(0).normal(size=(5, 28)))
    assert (nets.world.reward(feat).mean() == 0).all()
    assert (nets.critic(feat).mean() == 0).all()
    np.testing.assert_allclose(nets.actor(feat).probs, 0.25, atol=0.02)
    assert np.ptp(nets.world.continue_prob(feat).prob) > 0.01
