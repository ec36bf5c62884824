"""Distributions against numbers worked out by hand, and their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.agent.distributions import (
    Bernoulli,
    Categorical,
    Normal,
    TwoHot,
    symexp_bins,
    symlog,
)

KEY = jax.random.key(0)


def categorical(*probs):
    return Categorical.of(jnp.log(jnp.array(probs)))


# Categorical


def test_categorical_normalises_its_logits():
    dist = Categorical.of(jnp.array([1.0, 1.0, 1.0 + np.log(2)]))
    np.testing.assert_allclose(dist.probs, [0.25, 0.25, 0.5], rtol=1e-6)


def test_unimix_is_a_share_of_the_uniform():
    dist = Categorical.of(jnp.array([0.0, -1e9, -1e9, -1e9]), 0.01)
    expected = [0.99 + 0.0025, 0.0025, 0.0025, 0.0025]
    np.testing.assert_allclose(dist.probs, expected, rtol=1e-5)


def test_entropy_in_nats():
    np.testing.assert_allclose(
        categorical(0.25, 0.25, 0.25, 0.25).entropy(), 1.3862944, rtol=1e-6
    )
    # -0.5 ln 0.5 - 2 * 0.25 ln 0.25
    np.testing.assert_allclose(
        categorical(0.5, 0.25, 0.25).entropy(), 1.0397208, rtol=1e-6
    )
    assert categorical(0.5, 0.5).entropy_range() == (0, np.log(2))


def test_kl_is_directed():
    p, q = categorical(0.5, 0.5), categorical(0.9, 0.1)
    # 0.5 ln(5/9) + 0.5 ln 5  and  0.9 ln(9/5) + 0.1 ln(1/5)
    np.testing.assert_allclose(p.kl(q), 0.5108256, rtol=1e-5)
    np.testing.assert_allclose(q.kl(p), 0.3680642, rtol=1e-5)
    assert p.kl(p) == 0


def test_log_prob_picks_the_class():
    dist = categorical([0.5, 0.5], [0.9, 0.1])
    log_prob = dist.log_prob(jnp.array([0, 1]))
    np.testing.assert_allclose(log_prob, np.log([0.5, 0.1]), rtol=1e-6)


def test_mode():
    mode = categorical([0.2, 0.5, 0.3], [0.4, 0.3, 0.3]).mode()
    assert mode.dtype == jnp.int32
    assert mode.tolist() == [1, 0]


def test_samples_follow_the_probabilities():
    probs = np.array([0.1, 0.2, 0.7])
    dist = Categorical(jnp.broadcast_to(np.log(probs), (5000, 3)))
    share = np.bincount(dist.sample(KEY), minlength=3) / 5000
    np.testing.assert_allclose(share, probs, atol=0.03)  # 4 deviations


def test_every_sample_is_drawn_by_jax_random_categorical(monkeypatch):
    monkeypatch.setattr(
        jax.random, "categorical", lambda key, x, axis=-1: jnp.argmin(x, axis)
    )
    dist = categorical(0.2, 0.7, 0.1)
    assert dist.sample(KEY) == 2
    assert dist.sample_onehot(KEY).tolist() == [0, 0, 1]


def test_straight_through_sample_is_one_hot_with_gradient_of_the_probs():
    logits, weight = jnp.array([0.3, -0.2, 1.0]), jnp.array([1.0, 5.0, -2.0])

    def of_sample(logits):
        onehot = Categorical.of(logits, 0.01).sample_onehot(KEY)
        return (onehot * weight).sum(), onehot

    def of_probs(logits):
        return (Categorical.of(logits, 0.01).probs * weight).sum()

    grad, onehot = jax.grad(of_sample, has_aux=True)(logits)
    assert sorted(onehot.tolist()) == [0, 0, 1]
    expected = jax.grad(of_probs)(logits)
    assert np.abs(expected).min() > 0.01
    np.testing.assert_allclose(grad, expected, rtol=1e-6)


# Normal


def test_normal_density_and_entropy_sum_over_the_last_axis():
    dist = Normal(jnp.array([[0.0, 1.0]]), jnp.array([[1.0, 0.5]]), 0.1, 1.0)
    # N(0; 0, 1): -0.9189385; N(0; 1, 0.5): -2 - ln 0.5 - 0.9189385
    log_prob = dist.log_prob(jnp.zeros((1, 2)))
    np.testing.assert_allclose(log_prob, [-3.1447299], rtol=1e-6)
    # 1.4189385 each, and ln 0.5 for the second
    np.testing.assert_allclose(dist.entropy(), [2.1447299], rtol=1e-6)


def test_normal_entropy_range_is_that_of_its_standard_deviations():
    dist = Normal(jnp.zeros((2,)), jnp.ones((2,)), 0.1, 1.0)
    # 2 * (1.4189385 + ln 0.1) and 2 * 1.4189385
    np.testing.assert_allclose(
        dist.entropy_range(), [-1.7672931, 2.8378771], rtol=1e-6
    )


def test_normal_samples_have_its_mean_and_deviation():
    mean = jnp.broadcast_to(jnp.array([3.0, -1.0]), (5000, 2))
    std = jnp.broadcast_to(jnp.array([0.5, 0.1]), (5000, 2))
    dist = Normal(mean, std, 0.1, 1.0)
    sample = np.asarray(dist.sample(KEY))
    np.testing.assert_allclose(sample.mean(0), [3, -1], atol=0.03)
    np.testing.assert_allclose(sample.std(0), [0.5, 0.1], rtol=0.05)
    assert (dist.mode() == mean).all()


# Bernoulli


def test_bernoulli_cross_entropy_with_soft_targets():
    dist = Bernoulli(jnp.array([0.0, np.log(3), np.log(3), 200.0]))
    np.testing.assert_allclose(dist.prob, [0.5, 0.75, 0.75, 1.0], rtol=1e-6)
    loss = dist.loss(jnp.array([0.3, 1.0, 0.5, 0.0]))
    # ln 2; -ln 0.75; -(ln 0.75 + ln 0.25) / 2; 200 without overflow
    expected = [0.6931472, 0.2876821, 0.8369882, 200.0]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


# Symlog


def test_symlog_of_known_numbers():
    x = np.array([0, 1, -1, np.e - 1, 99, -99], np.float32)
    expected = [0, 0.6931472, -0.6931472, 1, 4.6051702, -4.6051702]
    np.testing.assert_allclose(symlog(x), expected, rtol=1e-6)


def test_symexp_undoes_it_near_zero_and_far_from_it():
    x = np.array([1e-6, -1e-3, 0.5, 1e3, -1e6], np.float32)
    y = np.asarray(symlog(x), float)
    np.testing.assert_allclose(np.sign(y) * np.expm1(abs(y)), x, rtol=1e-5)


def test_slope_is_one_at_zero():
    assert jax.grad(symlog)(1e-8) == 1


# Two-hot


def test_bins_are_symexp_spaced():
    bins = symexp_bins(41)  # symexp of the whole numbers -20..20
    np.testing.assert_allclose(
        bins[20:23], [0, 1.7182818, 6.3890561], rtol=1e-6
    )
    np.testing.assert_allclose(bins[[0, 40]], [-4.851652e8, 4.851652e8])


@pytest.mark.parametrize("count", [2, 3, 4, 41, 254, 255])
def test_bins_are_exactly_symmetric_and_sorted(count):
    bins = symexp_bins(count)
    assert bins.shape == (count,)
    assert bins.dtype == np.float32
    assert (bins == -bins[::-1]).all()
    assert (np.diff(bins) >= 0).all()


@pytest.mark.parametrize("count", [2, 3, 4, 41, 254, 255])
@pytest.mark.parametrize("value", [0.0, 1.7, -30.0])
@pytest.mark.parametrize("lead", [(), (5,), (64, 16)])
@pytest.mark.usefixtures("full_compilation")
def test_mean_of_uniform_logits_is_exactly_zero(count, value, lead):
    """Also where, as on few rows, compilers fuse products with sums."""
    dist = TwoHot(jnp.full((*lead, count), value))
    assert (dist.mean() == 0).all()
    assert (jax.jit(lambda x: TwoHot(x).mean())(dist.logits) == 0).all()


def test_mean_of_a_certain_bin_is_that_bin():
    logits = jnp.where(jnp.arange(41) == 22, 0.0, -1e9)
    np.testing.assert_allclose(TwoHot(logits).mean(), 6.3890561, rtol=1e-6)
    np.testing.assert_allclose(
        TwoHot(logits[::-1]).mean(), -6.3890561, rtol=1e-6
    )


def twohot(target, count):
    """The encoding that a loss uses, from its gradient at uniform logits."""
    grad = jax.grad(lambda x: TwoHot(x).loss(jnp.float32(target)))
    return 1 / count - np.asarray(grad(jnp.zeros(count)))


def test_loss_of_a_hand_computed_case():
    # 1 lies between the bins 0 and e - 1, 1 / (e - 1) = 0.5819767 of the
    # way; with probability 2/42 on the upper and 1/42 on all others the
    # loss is ln 42 - 0.5819767 ln 2.
    logits = jnp.where(jnp.arange(41) == 21, np.log(2.0), 0.0)
    loss = TwoHot(logits).loss(jnp.float32(1))
    np.testing.assert_allclose(loss, 3.3342742, rtol=1e-6)
    # -1 lies between two bins of equal probability.
    loss = TwoHot(logits).loss(jnp.float32(-1))
    np.testing.assert_allclose(loss, 3.7376696, rtol=1e-6)


def test_target_is_shared_by_distance():
    weights = np.zeros(41)
    weights[[20, 21]] = 0.4180233, 0.5819767
    np.testing.assert_allclose(twohot(1, 41), weights, atol=1e-6)
    np.testing.assert_allclose(twohot(-1, 41), weights[::-1], atol=1e-6)


@pytest.mark.parametrize("index", [0, 1, 20, 21, 39, 40])
def test_target_on_a_bin_takes_that_bin_alone(index):
    weights = np.eye(41)[index]
    target = symexp_bins(41)[index]
    np.testing.assert_allclose(twohot(target, 41), weights, atol=1e-6)


def test_targets_beyond_the_ends_fall_on_the_last_bins():
    np.testing.assert_allclose(twohot(1e30, 41), np.eye(41)[40], atol=1e-6)
    np.testing.assert_allclose(twohot(-1e30, 41), np.eye(41)[0], atol=1e-6)


def test_encoding_keeps_the_mean_with_an_even_count():
    for target in (-3.0, 0.0, 1e-3, 100.0):
        weights = twohot(target, 42)
        assert abs(weights.sum() - 1) < 1e-5
        mean = (
            weights[np.abs(weights) > 1e-6]
            @ symexp_bins(42)[np.abs(weights) > 1e-6]
        )
        np.testing.assert_allclose(mean, target, rtol=1e-3, atol=1e-4)


def test_loss_gradient_is_softmax_minus_encoding():
    logits = jnp.array([0.1, 2.0, -1.0, 0.5, 0.0])
    target = jnp.float32(1e3)
    grad = jax.grad(lambda x: TwoHot(x).loss(target))(logits)
    expected = jax.nn.softmax(logits) - twohot(target, 5)
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_loss_sends_no_gradient_into_its_target():
    dist = TwoHot(jnp.arange(41.0))
    assert jax.grad(dist.loss)(jnp.float32(0.5)) == 0
