"""symlog against numbers worked out by hand."""

import jax
import numpy as np

from dreamer.agent.transforms import symlog


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
