"""The world model's losses: values, and whom their gradients reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dreamer.agent.distributions import Categorical
from dreamer.agent.networks import Init
from dreamer.agent.rssm import State
from dreamer.agent.world_model import (
    WorldModel,
    action_vector,
    action_width,
    group_kl,
    world_model_loss,
)
from tests.agent.tiny import (
    BUTTONS,
    JOINTS,
    VECTOR,
    awake,
    changed,
    tiny_config,
)

CONFIG = tiny_config()
RSSM = CONFIG.dyn.rssm
B, T = 2, 3
RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def split_model():
    model = WorldModel(
        VECTOR, BUTTONS, CONFIG, dtype=jnp.float32, init=Init(0)
    )
    graph, params = nnx.split(model)
    return graph, nnx.to_pure_dict(awake(params))


@pytest.fixture(scope="module")
def data():
    obs = {
        "position": normal(B, T, 3),
        "reward": normal(B, T),
        "is_terminal": jnp.zeros((B, T), bool).at[0, 1].set(True),
    }
    onehot = np.eye(RSSM.classes)[RNG.integers(0, 4, (B, T, RSSM.stoch))]
    state = State(normal(B, T, RSSM.deter), jnp.asarray(onehot, jnp.float32))
    posterior = Categorical.of(normal(B, T, RSSM.stoch, RSSM.classes), 0.01)
    return obs, state, posterior


def losses_of(split_model, data, free_nats=1.0, **changes):
    graph, params = split_model
    config = changed(CONFIG, {"dyn.rssm.free_nats": free_nats})
    params = changes.get("params", params)
    obs, state, posterior = data
    logs = changes.get("posterior", posterior).log_probs

    @jax.jit
    def loss(params, obs, state, logs):
        model = nnx.merge(graph, params)
        posterior = Categorical(logs)
        return world_model_loss(model, config, obs, state, posterior)

    return loss(params, obs, state, logs)


def test_every_loss_is_a_mean_over_batch_and_time(split_model, data):
    losses, metrics = losses_of(split_model, data)
    assert set(losses) == {"position", "rew", "con", "dyn", "rep"}
    assert all(x.shape == () for x in losses.values())
    obs, state, posterior = data
    model = nnx.merge(*split_model)
    each = model.reward(state.feat).loss(obs["reward"])
    assert each.shape == (B, T)
    np.testing.assert_allclose(losses["rew"], each.mean(), rtol=1e-6)
    entropy = posterior.entropy().sum(-1).mean()
    np.testing.assert_allclose(metrics["rep_ent"], entropy, rtol=1e-6)
    entropy = model.rssm.prior(state.deter).entropy().sum(-1).mean()
    np.testing.assert_allclose(metrics["dyn_ent"], entropy, rtol=1e-6)


def test_continue_target_holds_the_discount_and_ends_at_terminal(
    split_model, data
):
    losses, _ = losses_of(split_model, data)
    prob = nnx.merge(*split_model).continue_prob(data[1].feat).prob
    target = np.full((B, T), 332 / 333)
    target[0, 1] = 0
    expected = -target * np.log(prob) - (1 - target) * np.log(1 - prob)
    np.testing.assert_allclose(losses["con"], expected.mean(), rtol=1e-4)


def test_kl_is_summed_over_groups_before_the_free_nats(split_model, data):
    _, state, posterior = data
    prior = nnx.merge(*split_model).rssm.prior(state.deter)
    kl = np.asarray(posterior.kl(prior))  # (B, T, S)
    np.testing.assert_allclose(
        group_kl(posterior, prior), kl.sum(-1), rtol=1e-5
    )
    limit = float(np.median(kl.sum(-1)))
    losses, _ = losses_of(split_model, data, limit)
    expected = np.maximum(limit, kl.sum(-1)).mean()
    np.testing.assert_allclose(losses["dyn"], expected, rtol=1e-5)
    np.testing.assert_allclose(losses["rep"], expected, rtol=1e-5)


def test_below_the_free_nats_nothing_pushes(split_model, data):
    prior = nnx.merge(*split_model).rssm.prior(data[1].deter)
    losses, _ = losses_of(split_model, data, posterior=prior)
    assert losses["dyn"] == losses["rep"] == 1


def largest(tree):
    return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def test_dyn_trains_the_prior_and_rep_the_posterior(split_model, data):
    _, params = split_model

    def loss(params, logs, name):
        changes = dict(params=params, posterior=Categorical(logs))
        return losses_of(split_model, data, 0.0, **changes)[0][name]

    grad = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    params_grad, posterior_grad = grad(params, data[2].log_probs, "dyn")
    assert largest(params_grad["rssm"]["prior_out"]) > 1e-3
    assert largest(posterior_grad) == 0
    params_grad, posterior_grad = grad(params, data[2].log_probs, "rep")
    assert largest(params_grad) == 0
    assert largest(posterior_grad) > 1e-3


def test_actions_become_vectors():
    assert action_width(BUTTONS) == 4
    assert action_width(JOINTS) == 2
    index = jnp.array([[2], [0]])
    vector = action_vector(index, BUTTONS)
    np.testing.assert_array_equal(vector, np.eye(4)[[[2], [0]]])
    continuous = normal(5, 2)
    assert action_vector(continuous, JOINTS) is continuous
