"""Lambda-returns and their range against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.agent.returns import (
    ReturnRange,
    initial_return_range,
    lambda_return,
)

REWARD = jnp.array([[100.0, 1.0, 2.0, 3.0]])  # the first is never used
DISCOUNT = jnp.array([[100.0, 0.5, 0.5, 0.5]])
VALUE = jnp.array([[100.0, 10.0, 20.0, 30.0]])


def returns(lam, **changes):
    kw = dict(reward=REWARD, discount=DISCOUNT, value=VALUE) | changes
    kw.setdefault("bootstrap", kw["value"])
    return lambda_return(**kw, lam=lam)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_hand_computed_example(wrap):
    # R_3 = 30
    # R_2 = 3 + 0.5 (0.2 * 30 + 0.8 * 30) = 18
    # R_1 = 2 + 0.5 (0.2 * 20 + 0.8 * 18) = 11.2
    # R_0 = 1 + 0.5 (0.2 * 10 + 0.8 * 11.2) = 6.48
    result = wrap(returns)(0.8)
    np.testing.assert_allclose(result, [[6.48, 11.2, 18.0]], rtol=1e-6)


def test_lambda_zero_looks_one_step_ahead():
    # r + 0.5 v of the next step
    np.testing.assert_allclose(returns(0.0), [[6.0, 12.0, 18.0]], rtol=1e-6)


def test_lambda_one_is_the_discounted_sum_and_the_last_value():
    # 3 + 15; 2 + 9; 1 + 5.5
    np.testing.assert_allclose(returns(1.0), [[6.5, 11.0, 18.0]], rtol=1e-6)


def test_lambda_zero_at_a_step_cuts_there():
    # The return into step 2 bootstraps with its value: 2 + 0.5 * 20.
    lam = jnp.array([[1.0, 1.0, 0.0, 1.0]])
    np.testing.assert_allclose(returns(lam), [[7.0, 12.0, 18.0]], rtol=1e-6)


def test_discount_zero_ends_the_episode():
    discount = jnp.array([[0.5, 0.5, 0.0, 0.5]])
    result = returns(0.8, discount=discount)
    # R_1 = 2; R_0 = 1 + 0.5 (0.2 * 10 + 0.8 * 2)
    np.testing.assert_allclose(result, [[2.8, 2.0, 18.0]], rtol=1e-6)


def test_bootstrap_is_mixed_in_and_value_ends_the_recursion():
    result = returns(0.0, bootstrap=VALUE + 2)
    np.testing.assert_allclose(result, [[7.0, 13.0, 19.0]], rtol=1e-6)
    result = returns(1.0, bootstrap=VALUE + 2)
    np.testing.assert_allclose(result, [[6.5, 11.0, 18.0]], rtol=1e-6)


def test_rows_are_independent():
    kw = dict(reward=REWARD, discount=DISCOUNT, value=VALUE)
    kw = {k: jnp.concatenate([2 * v, v]) for k, v in kw.items()}
    kw["discount"] = jnp.concatenate([DISCOUNT, DISCOUNT])
    result = returns(0.8, **kw)
    expected = np.array([[6.48, 11.2, 18.0]])
    np.testing.assert_allclose(
        result, np.concatenate([2 * expected, expected]), rtol=1e-6
    )


def test_shapes_that_differ_are_refused():
    with pytest.raises(AssertionError):
        returns(0.8, reward=REWARD[:, :3])


def test_range_starts_at_zero_and_moves_by_its_rate():
    values = jnp.arange(101.0).reshape(1, 101)  # percentile p is p
    first = initial_return_range().update(values, 0.01, 5, 95)
    np.testing.assert_allclose(first, [0.05, 0.95], rtol=1e-5)
    second = first.update(values, 0.01, 5, 95)
    # 0.99 * before + 0.01 * new
    np.testing.assert_allclose(second, [0.0995, 1.8905], rtol=1e-5)


def test_percentiles_are_interpolated():
    full = initial_return_range().update(jnp.array([0.0, 10.0]), 1.0, 5, 95)
    np.testing.assert_allclose(full, [0.5, 9.5], rtol=1e-5)


def test_scale_is_the_range_but_never_below_the_limit():
    assert ReturnRange(jnp.float32(-3), jnp.float32(7)).scale(1.0) == 10
    assert ReturnRange(jnp.float32(0.1), jnp.float32(0.2)).scale(1.0) == 1
