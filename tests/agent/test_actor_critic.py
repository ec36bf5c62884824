"""Actor and critic losses with stand-in models of known predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dreamer.agent.actor_critic import (
    Actor,
    critic_loss,
    imagination_loss,
    relative_entropy,
    replay_value_loss,
)
from dreamer.agent.distributions import Bernoulli, Categorical, TwoHot
from dreamer.agent.networks import Init
from dreamer.agent.optim import clip_by_agc
from dreamer.agent.returns import ReturnRange, lambda_return
from tests.agent.tiny import BUTTONS, JOINTS, changed, tiny_config

CONFIG = tiny_config()
RNG = np.random.default_rng(0)
N, H, F, BINS = 3, 4, 5, 41
KW = dict(dtype=jnp.float32, init=Init(0))


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


# Actor


def test_discrete_actor_starts_nearly_uniform_without_unimix():
    actor = Actor(F, BUTTONS, CONFIG.policy, **KW)
    dist = actor(normal(N, F))
    assert isinstance(dist, Categorical)
    np.testing.assert_allclose(dist.probs, np.full((N, 4), 0.25), atol=0.02)
    assert (dist.probs != 0.25).any()


def test_the_papers_unimix_is_an_option():
    config = changed(CONFIG.policy, {"unimix": 0.2})
    actor = Actor(F, BUTTONS, config, **KW)
    actor.head.out.bias[...] = jnp.array([1e3, 0, 0, 0])
    probs = actor(normal(N, F)).probs
    expected = np.broadcast_to([0.85, 0.05, 0.05, 0.05], (N, 4))
    np.testing.assert_allclose(probs, expected, rtol=1e-4)


def test_continuous_actor_squashes_mean_and_deviation():
    actor = Actor(F, JOINTS, CONFIG.policy, dtype=jnp.float32, init=Init())
    actor.head.out.bias[...] = jnp.array([0.5, -40.0])
    actor.std.bias[...] = jnp.array([0.0, -2.0])
    dist = actor(normal(N, F))
    np.testing.assert_allclose(dist.mean[0], [np.tanh(0.5), -1], rtol=1e-6)
    # 0.9 sigmoid(2) + 0.1 and 0.9 sigmoid(0) + 0.1
    np.testing.assert_allclose(dist.std[0], [0.8927173, 0.55], rtol=1e-6)
    assert dist.sample(jax.random.key(0)).shape == (N, 2)
    assert dist.log_prob(jnp.zeros((N, 2))).shape == (N,)
    # 2 * (1.4189385 + ln 0.1) and 2 * 1.4189385, of deviations 0.1 and 1
    expected = [-1.7672931, 2.8378771]
    np.testing.assert_allclose(dist.entropy_range(), expected, rtol=1e-6)


def test_continuous_actor_starts_nearly_the_same_everywhere():
    dist = Actor(F, JOINTS, CONFIG.policy, **KW)(normal(N, F))
    np.testing.assert_allclose(dist.mean, np.zeros((N, 2)), atol=0.05)
    # 0.9 sigmoid(2) + 0.1
    expected = np.full((N, 2), 0.8927173)
    np.testing.assert_allclose(dist.std, expected, atol=0.01)
    assert np.ptp(dist.mean) > 0
    assert np.ptp(dist.std) > 0


def test_a_large_gradient_of_the_deviation_does_not_clip_the_mean():
    actor = Actor(F, JOINTS, CONFIG.policy, dtype=jnp.float32, init=Init(1))
    graph, params = nnx.split(actor)
    feat = normal(N, F)

    def clipped(weight):
        def loss(params):
            dist = nnx.merge(graph, params)(feat)
            return 1e-4 * dist.mean.sum() + weight * dist.std.sum()

        grads = jax.grad(loss)(params)
        return clip_by_agc(0.3).update(grads, None, params)[0]

    alone, beside = clipped(0.0), clipped(1e3)
    np.testing.assert_allclose(
        beside["head"]["out"]["kernel"][...],
        alone["head"]["out"]["kernel"][...],
        rtol=1e-6,
    )
    assert jnp.abs(beside["std"]["kernel"][...]).max() > 0


def test_critic_loss_is_two_cross_entropies_with_constant_targets():
    dist, target, slow = TwoHot(normal(N, BINS)), normal(N), normal(N)
    expected = dist.loss(target) + 0.5 * dist.loss(slow)
    loss = critic_loss(dist, target, slow, 0.5)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("entropy", "lowest", "highest", "expected"),
    [
        (np.log(2), 0.0, np.log(4), 0.5),
        (-1.0, -3.0, 5.0, 0.25),
        (0.0, 0.0, 0.0, 0.0),  # one action
        (1.4, 1.4, 1.4, 0.0),  # one standard deviation
    ],
)
def test_relative_entropy(entropy, lowest, highest, expected):
    found = relative_entropy(jnp.float32(entropy), lowest, highest)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# Losses


class Stub:
    """A world model, actor or critic that predicts given logits."""

    def __init__(self, reward, cont):
        self.of_reward, self.of_cont = reward, cont

    def reward(self, feat):
        return TwoHot(self.of_reward)

    def continue_prob(self, feat):
        return Bernoulli(self.of_cont)


@pytest.fixture(scope="module")
def predictions():
    return {
        "reward": normal(N, H + 1, BINS),
        "cont": normal(N, H + 1),
        "policy": normal(N, H, 4),
        "value": normal(N, H + 1, BINS),
        "slow": normal(N, H + 1, BINS),
    }


FEAT = normal(N, H + 1, F)
ACTIONS = jnp.asarray(RNG.integers(0, 4, (N, H)), jnp.int32)
RANGE = ReturnRange(jnp.float32(-1e6), jnp.float32(3e6))


@jax.jit
def imagine_losses(x):
    return imagination_loss(
        Stub(x["reward"], x["cont"]),
        lambda feat: Categorical.of(x["policy"]),
        lambda feat: TwoHot(x["value"]),
        lambda feat: TwoHot(x["slow"]),
        CONFIG,
        FEAT,
        ACTIONS,
        RANGE,
    )


def expected_parts(x, lam=0.95):
    """Return, weight, value and slow value as the paper defines them."""
    reward = np.asarray(TwoHot(x["reward"]).mean(), np.float64)
    cont = 1 / (1 + np.exp(-np.asarray(x["cont"], np.float64)))
    value = np.asarray(TwoHot(x["value"]).mean(), np.float64)
    returns = np.zeros((N, H))
    future = value[:, H]
    for t in reversed(range(H)):
        mixed = (1 - lam) * value[:, t + 1] + lam * future
        future = reward[:, t + 1] + cont[:, t + 1] * mixed
        returns[:, t] = future
    weight = np.stack([cont[:, : t + 1].prod(1) for t in range(H + 1)], 1)
    return returns, weight, value


def test_imagination_losses_follow_the_paper(predictions):
    losses, metrics, first, new = imagine_losses(predictions)
    returns, weight, value = expected_parts(predictions)
    low, high = np.percentile(returns, [5, 95])
    low, high = 0.99 * -1e6 + 0.01 * low, 0.99 * 3e6 + 0.01 * high
    np.testing.assert_allclose(new, [low, high], rtol=1e-4)
    scale = max(1, high - low)
    advantage = (returns - value[:, :-1]) / scale

    policy = Categorical.of(predictions["policy"])
    objective = policy.log_prob(ACTIONS) * advantage
    objective += 3e-4 * policy.entropy()
    expected = (-weight[:, :-1] * np.asarray(objective)).mean()
    np.testing.assert_allclose(losses["policy"], expected, rtol=1e-3)

    dist = TwoHot(predictions["value"][:, :-1])
    slow = TwoHot(predictions["slow"]).mean()[:, :-1]
    each = dist.loss(jnp.asarray(returns, jnp.float32)) + dist.loss(slow)
    expected = (weight[:, :-1] * np.asarray(each)).mean()
    np.testing.assert_allclose(losses["value"], expected, rtol=1e-4)

    np.testing.assert_allclose(first, returns[:, 0], rtol=1e-4)
    np.testing.assert_allclose(metrics["tar"], returns.mean(), rtol=1e-4)
    normed = (returns - low) / scale
    for name, figure in [
        ("adv", advantage.mean()),
        ("adv_std", advantage.std()),
        ("adv_mag", np.abs(advantage).mean()),
        ("val", value.mean()),
        ("weight", weight.mean()),
        ("ret", normed.mean()),
        ("ret_min", normed.min()),
        ("ret_max", normed.max()),
        ("ret_rate", (np.abs(normed) >= 1).mean()),
    ]:
        np.testing.assert_allclose(metrics[name], figure, rtol=2e-3)
    share = policy.entropy().mean() / np.log(4)
    np.testing.assert_allclose(metrics["rand/action"], share, rtol=1e-5)


def test_imagination_trains_actor_and_critic_only(predictions):
    def loss(x, name):
        return imagine_losses(x)[0][name]

    for name in ("policy", "value"):
        grads = jax.grad(loss)(predictions, name)
        reached = {key for key, grad in grads.items() if grad.any()}
        assert reached - {"reward", "cont"} == {name}


@jax.jit
def replay_loss(value, slow, obs, bootstrap):
    """`value` are the logits that the critic gives, (B, T, bins)."""
    return replay_value_loss(
        lambda feat: TwoHot(feat),
        lambda feat: TwoHot(slow),
        CONFIG,
        value,
        obs,
        bootstrap,
    )


@pytest.fixture(scope="module")
def replayed():
    obs = {
        "reward": normal(2, 5),
        "is_last": jnp.zeros((2, 5), bool).at[0, 2].set(True),
        "is_terminal": jnp.zeros((2, 5), bool),
    }
    return normal(2, 5, BINS), normal(2, 5, BINS), obs, normal(2, 5)


@pytest.mark.parametrize("terminal", [False, True])
def test_replay_loss_follows_the_paper(replayed, terminal):
    value, slow, obs, bootstrap = replayed
    obs = obs | {"is_terminal": obs["is_last"] & terminal}
    discount = np.full((2, 5), 332 / 333)
    discount[0, 2] *= not terminal
    lam = np.full((2, 5), 0.95)
    lam[0, 2] = 0  # the episode ends: bootstrap there, or with nothing
    returns = lambda_return(
        obs["reward"], jnp.asarray(discount), bootstrap, bootstrap, lam
    )
    dist = TwoHot(value[:, :-1])
    each = dist.loss(returns) + dist.loss(TwoHot(slow).mean()[:, :-1])
    each = np.array(each)
    each[0, 2] = 0  # what follows a last step is another episode
    loss = replay_loss(value, slow, obs, bootstrap)
    np.testing.assert_allclose(loss, each.sum() / 8, rtol=1e-5)


def test_replay_loss_reaches_the_states_but_not_its_targets(replayed):
    value, slow, obs, bootstrap = replayed
    grads = jax.grad(replay_loss, (0, 1, 3))(value, slow, obs, bootstrap)
    assert grads[0][:, :-1].any()
    assert not grads[0][:, -1].any()
    assert not grads[0][0, 2].any()  # is_last
    assert not grads[1].any()
    assert not grads[2].any()
