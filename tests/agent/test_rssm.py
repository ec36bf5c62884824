"""The RSSM against a plain NumPy transcription, and its three time loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dreamer.agent.networks import Init
from dreamer.agent.rssm import RSSM, State, mask
from tests.agent.tiny import awake, tiny_config, use_argmax

B, T, A, TOKENS = 3, 5, 4, 6
CONFIG = tiny_config().dyn.rssm
D, S, C, G = CONFIG.deter, CONFIG.stoch, CONFIG.classes, CONFIG.blocks
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def rssm():
    model = RSSM(CONFIG, A, TOKENS, dtype=jnp.float32, init=Init(0))
    graph, params = nnx.split(model)
    return nnx.merge(graph, awake(params))


@pytest.fixture(scope="module")
def state():
    onehot = np.eye(C)[RNG.integers(0, C, (B, S))]
    return State(normal(B, D), jnp.asarray(onehot, jnp.float32))


def assert_close(ours, theirs):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        ours,
        theirs,
    )


# NumPy transcription


def array(param):
    return np.asarray(param[...], np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm_act(x, norm):
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * array(norm.scale)
    return x * sigmoid(x)


def dense(x, layer):
    linear = layer.linear
    x = x @ array(linear.kernel) + array(linear.bias)
    return norm_act(x, layer.norm)


def slow_core(rssm, deter, stoch, action):
    """One environment, one block after the other."""
    inputs = [
        dense(deter, rssm.deter_in),
        dense(stoch.ravel(), rssm.stoch_in),
        dense(action, rssm.action_in),
    ]
    parts = np.split(deter, G)
    mixed = [
        np.concatenate([part, *inputs]) @ kernel
        for part, kernel in zip(parts, array(rssm.mix.kernel), strict=True)
    ]
    x = np.concatenate(mixed) + array(rssm.mix.bias)
    x = norm_act(x, rssm.mix_norm)
    result = []
    biases = np.split(array(rssm.gates.bias), G)
    for part, old, kernel, bias in zip(
        np.split(x, G), parts, array(rssm.gates.kernel), biases, strict=True
    ):
        reset, cand, update = np.split(part @ kernel + bias, 3)
        cand = np.tanh(sigmoid(reset) * cand)
        update = sigmoid(update - 1)
        result.append(update * cand + (1 - update) * old)
    return np.concatenate(result)


def test_core_follows_the_transcription(rssm, state):
    action = normal(B, A) / 10
    deter = rssm.core(state, rssm.embed_action(action))
    expected = [
        slow_core(rssm, *(np.asarray(x[i], np.float64) for x in row))
        for i in range(B)
        for row in [(*state, action)]
    ]
    assert_close(deter, np.array(expected))


def test_prior_and_posterior_follow_the_transcription(rssm, state):
    tokens = normal(B, TOKENS)
    deter = np.asarray(state.deter, np.float64)
    x = np.concatenate([deter, tokens], -1) @ array(rssm.posterior_in.kernel)
    x = norm_act(x + array(rssm.posterior_in.bias), rssm.posterior_norm)
    x = x @ array(rssm.posterior_out.kernel) + array(rssm.posterior_out.bias)
    ours = rssm.posterior(state.deter, rssm.project_tokens(tokens))
    assert_close(ours.log_probs, unimix(x))
    x = dense(dense(deter, rssm.prior_mlp.layers[0]), rssm.prior_mlp.layers[1])
    x = x @ array(rssm.prior_out.kernel) + array(rssm.prior_out.bias)
    assert_close(rssm.prior(state.deter).log_probs, unimix(x))


def unimix(logits):
    x = np.exp(logits.reshape(B, S, C))
    return np.log(0.99 * x / x.sum(-1, keepdims=True) + 0.01 / C)


def test_an_untrained_update_gate_keeps_the_past():
    model = RSSM(CONFIG, A, TOKENS, dtype=jnp.float32, init=Init())
    deter = normal(B, D)
    stoch = jnp.zeros((B, S, C))
    # All-zero weights: candidate 0, update sigmoid(-1) = 0.2689414.
    result = model.core(
        State(deter, stoch), model.embed_action(jnp.zeros((B, A)))
    )
    assert_close(result, (1 - 0.2689414) * deter)


def test_actions_beyond_one_are_scaled_to_one(rssm):
    action = jnp.array([[-5.0, 0.5, 1.0, 40.0]])
    scaled = jnp.array([[-1.0, 0.5, 1.0, 1.0]])
    assert_close(rssm.embed_action(action), rssm.embed_action(scaled))
    other = jnp.array([[-0.5, 0.5, 1.0, 1.0]])
    difference = rssm.embed_action(scaled) - rssm.embed_action(other)
    assert np.abs(difference).max() > 1e-3


# Time loops


@pytest.fixture
def sequence(state):
    is_first = np.zeros((B, T), bool)
    is_first[0, 0] = is_first[1, 3] = True
    return state, normal(B, T, TOKENS), normal(B, T, A), jnp.array(is_first)


def test_observe_is_repeated_observe_step(monkeypatch, rssm, sequence):
    use_argmax(monkeypatch)
    carry, tokens, actions, is_first = sequence
    states, posterior = rssm.observe(carry, tokens, actions, is_first, KEY)
    assert states.deter.shape == (B, T, D)
    assert states.stoch.shape == (B, T, S, C)
    assert posterior.log_probs.shape == (B, T, S, C)
    for t in range(T):
        action = mask(actions[:, t], ~is_first[:, t])
        carry, step_posterior = rssm.observe_step(
            carry,
            rssm.project_tokens(tokens[:, t]),
            rssm.embed_action(action),
            is_first[:, t],
            KEY,
        )
        assert_close(State(*(x[:, t] for x in states)), carry)
        assert_close(posterior.log_probs[:, t], step_posterior.log_probs)


def test_every_step_and_row_draws_its_own_sample(rssm):
    tokens = jnp.zeros((40, 30, TOKENS))
    states, _ = rssm.observe(
        State(jnp.zeros((40, D)), jnp.zeros((40, S, C))),
        tokens,
        jnp.zeros((40, 30, A)),
        jnp.ones((40, 30), bool),  # so all posteriors are alike
        KEY,
    )
    index = np.asarray(states.stoch.argmax(-1))
    assert (np.abs(states.deter - states.deter[:1, :1]) < 1e-6).all()
    assert all(len(np.unique(index[:, t], axis=0)) > 2 for t in range(30))
    assert all(len(np.unique(index[b], axis=0)) > 2 for b in range(40))


def test_is_first_forgets_state_and_action(monkeypatch, rssm, sequence):
    use_argmax(monkeypatch)
    carry, tokens, actions, is_first = sequence
    reference, _ = rssm.observe(carry, tokens, actions, is_first, KEY)
    # Row 0 restarts at step 0, row 1 at step 3, row 2 never.
    garbage = State(*(x + jnp.nan for x in carry))
    garbage = State(
        *(x.at[1:].set(y[1:]) for x, y in zip(garbage, carry, strict=True))
    )
    wild = actions.at[0, 0].set(jnp.inf).at[1, 3].set(jnp.nan)
    states, _ = rssm.observe(garbage, tokens, wild, is_first, KEY)
    assert_close(states, reference)
    # What came before a restart is lost behind it, and only there.
    wild = actions.at[:, 2].add(1.0)
    states, _ = rssm.observe(carry, tokens, wild, is_first, KEY)
    changed = np.abs(states.deter - reference.deter).max(-1) > 1e-6
    assert changed[:, 2].all()
    assert changed[[0, 2], 3].all()
    assert not changed[1, 3:].any()


def test_imagine_is_repeated_core_and_prior(monkeypatch, rssm, state):
    use_argmax(monkeypatch)
    horizon, weight = 4, normal(D + S * C, A)

    def policy(feat, key):
        del key
        index = jnp.argmax(feat @ weight, -1)
        return index, jax.nn.one_hot(index, A)

    states, actions = rssm.imagine(state, policy, horizon, KEY)
    assert states.deter.shape == (horizon + 1, B, D)
    assert states.stoch.shape == (horizon + 1, B, S, C)
    assert actions.shape == (horizon, B)
    for t in range(horizon):
        assert_close(State(*(x[t] for x in states)), state)
        action, vector = policy(state.feat, KEY)
        np.testing.assert_array_equal(actions[t], action)
        deter = rssm.core(state, rssm.embed_action(vector))
        stoch = rssm.prior(deter).sample_onehot(KEY)
        state = State(deter, stoch)
    assert_close(State(*(x[-1] for x in states)), state)


def test_feat_is_deter_then_flat_stoch(state):
    assert state.feat.shape == (B, D + S * C)
    np.testing.assert_array_equal(state.feat[:, :D], state.deter)
    flat = state.feat[:, D:].reshape(B, S, C)
    np.testing.assert_array_equal(flat, state.stoch)


def test_observe_has_the_gradient_of_the_plain_scan(rssm, state):
    graph, params = nnx.split(rssm)
    is_first = jnp.zeros((B, T), bool).at[1, 2].set(True)
    tokens, actions = normal(B, T, TOKENS), normal(B, T, A)
    keys = jax.random.split(KEY, T)
    weights = State(normal(B, T, D), normal(B, T, S, C)), normal(B, T, S, C)

    def weighted(states, logs):
        parts = zip((*states, logs), jax.tree.leaves(weights), strict=True)
        return sum((x * weight).sum() for x, weight in parts)

    def ours(params, carry, tokens, actions):
        states, posterior = nnx.merge(graph, params).observe(
            carry, tokens, actions, is_first, KEY
        )
        return weighted(states, posterior.log_probs)

    def plain(params, state, tokens, actions):
        rssm, steps = nnx.merge(graph, params), []
        for t in range(T):
            action = mask(actions[:, t], ~is_first[:, t])
            state, posterior = rssm.observe_step(
                state,
                rssm.project_tokens(tokens[:, t]),
                rssm.embed_action(action),
                is_first[:, t],
                keys[t],
            )
            steps.append((state, posterior.log_probs))
        stacked = jax.tree.map(lambda *x: jnp.stack(x, 1), *steps)
        return weighted(*stacked)

    args = params, state, tokens, actions
    gradients = [jax.grad(f, (0, 1, 2, 3))(*args) for f in (ours, plain)]
    assert_close(*gradients)
    assert all(jnp.abs(x).max() > 0 for x in jax.tree.leaves(gradients[0][1]))


def test_every_draw_of_imagination_has_a_key_of_its_own(
    monkeypatch, rssm, state
):
    keys, draw = [], jax.random.categorical

    def note(key, logits, axis=-1):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return draw(key, logits, axis)

    def policy(feat, key):
        action = jax.random.categorical(key, feat[:, :A])
        return action, jax.nn.one_hot(action, A)

    monkeypatch.setattr(jax.random, "categorical", note)
    with jax.disable_jit():
        rssm.imagine(state, policy, 3, KEY)
    # Of the action and of the state, in each step.
    assert len(set(keys)) == len(keys) == 2 * 3
