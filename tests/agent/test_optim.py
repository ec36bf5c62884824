"""The optimiser against a plain NumPy transcription of the paper's words."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamer.agent.optim import (
    choose,
    clip_by_agc,
    is_finite,
    make_optimizer,
    optimizer_metrics,
    scale_by_laprop,
)
from dreamer.hyperparameters import OptConfig

SHAPES = {"kernel": (3, 4), "bias": (4,), "still": (2,)}


def tensors(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {k: scale * rng.normal(size=s) for k, s in SHAPES.items()}


def on_device(tree):
    return {k: jnp.asarray(v, jnp.float32) for k, v in tree.items()}


class Transcription:
    """One tensor, float64, a line for every sentence."""

    def __init__(self, param, config):
        self.param, self.config = param, config
        self.mean_square = self.momentum = 0.0
        self.updates = 0

    def update(self, grad):
        c = self.config
        limit = c.agc * max(1e-3, np.sqrt((self.param**2).sum()))
        norm = np.sqrt((grad**2).sum())
        if norm > limit:
            grad = grad * limit / norm
        warm = min(1.0, self.updates / c.warmup) if c.warmup else 1.0
        self.updates += 1
        self.mean_square = c.beta2 * self.mean_square + (1 - c.beta2) * grad**2
        rms = np.sqrt(self.mean_square / (1 - c.beta2**self.updates))
        self.momentum = c.beta1 * self.momentum + (1 - c.beta1) * (
            grad / (rms + c.eps)
        )
        unbiased = self.momentum / (1 - c.beta1**self.updates)
        self.param = self.param - c.lr * warm * unbiased


@pytest.mark.parametrize("warmup", [0, 3])
def test_follows_the_transcription_over_several_updates(warmup):
    config = OptConfig(lr=0.01, warmup=warmup)
    params = tensors(0) | {"bias": np.zeros(4)}
    slow = {k: Transcription(v, config) for k, v in params.items()}
    params = on_device(params)
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    for index in range(6):
        # Small, within the clip, far beyond it; one tensor never moves.
        grads = tensors(index + 1, 10.0 ** (index % 3 - 1))
        grads["still"] = np.zeros(2)
        before = params
        steps, state = optimizer.update(on_device(grads), state, params)
        params = {k: v + steps[k] for k, v in params.items()}
        for name in params:
            start = np.asarray(before[name])
            ours = np.asarray(params[name]) - start
            slow[name].param = start.astype(np.float64)
            slow[name].update(np.asarray(grads[name], np.float32))
            theirs = slow[name].param - start
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-8)
            if index == 0:
                assert (np.abs(ours).max() > 0) == (
                    warmup == 0 and name != "still"
                )


def test_first_step_after_warm_up_has_the_sign_of_the_gradient():
    # Momentum and mean square are unbiased: every entry moves by lr.
    optimizer = make_optimizer(OptConfig(lr=0.01, warmup=0))
    params = {"x": jnp.array([1.0, -2.0, 3.0])}
    grads = {"x": jnp.array([0.5, -1e-4, 1e3])}
    steps, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(steps["x"], [-0.01, 0.01, -0.01], rtol=1e-5)


def test_agc_limits_each_tensor_by_its_own_norm():
    clip = clip_by_agc(0.3)
    params = {
        "large": jnp.array([3.0, 4.0]),  # norm 5, limit 1.5
        "fine": jnp.array([3.0, 4.0]),
        "zero": jnp.zeros(2),  # counts as 1e-3, limit 3e-4
    }
    grads = {
        "large": jnp.array([0.0, -15.0]),
        "fine": jnp.array([0.9, 1.2]),
        "zero": jnp.array([1.0, 0.0]),
    }
    clipped, _ = clip.update(grads, clip.init(params), params)
    np.testing.assert_allclose(clipped["large"], [0, -1.5], rtol=1e-6)
    np.testing.assert_allclose(clipped["fine"], [0.9, 1.2], rtol=1e-6)
    np.testing.assert_allclose(clipped["zero"], [3e-4, 0], rtol=1e-6)


def test_normalisation_comes_before_momentum():
    # Gradients 1 then 100, beta 0.5 each: the second is divided by
    # sqrt((0.25 + 0.5 * 100^2) / 0.75) = 81.65 before it is averaged in:
    # (0.25 * 1 + 0.5 * 1.22473) / 0.75 = 1.149820.  Adam would average
    # first: (0.25 + 50) / 0.75 / 81.65 = 0.8206.
    laprop = scale_by_laprop(0.5, 0.5, 1e-20)
    state = laprop.init(jnp.zeros(1))
    step, state = laprop.update(jnp.array([1.0]), state)
    np.testing.assert_allclose(step, [1.0], rtol=1e-6)
    step, state = laprop.update(jnp.array([100.0]), state)
    np.testing.assert_allclose(step, [1.149820], rtol=1e-5)


def test_epsilon_is_outside_the_root():
    # 1e-6 / (1e-6 + 1e-6); inside it would be nearly 1e-6 / 1e-3.
    laprop = scale_by_laprop(0.9, 0.999, 1e-6)
    step, _ = laprop.update(jnp.array([1e-6]), laprop.init(jnp.zeros(1)))
    np.testing.assert_allclose(step, [0.5], rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_enough(bad):
    loss, grads = jnp.float32(1), on_device(tensors(0, 1e10))
    assert is_finite(loss, optax.tree.norm(grads))
    assert not is_finite(jnp.float32(bad), optax.tree.norm(grads))
    grads["bias"] = grads["bias"].at[2].set(bad)
    assert not is_finite(loss, optax.tree.norm(grads))


def test_choosing_keeps_every_bit():
    kept = {"a": jnp.array([-0.0, 1e-45]), "n": jnp.int32(7)}
    other = {"a": jnp.array([jnp.nan, jnp.inf]), "n": jnp.int32(8)}
    for then, otherwise, condition in [(kept, other, 1), (other, kept, 0)]:
        chosen = choose(jnp.bool_(condition), then, otherwise)
        assert chosen.keys() == kept.keys()
        for name, x in kept.items():
            assert chosen[name].tobytes() == x.tobytes()
            assert chosen[name].dtype == x.dtype


def test_metrics_are_over_all_parameters():
    params = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0], [0.0]])}
    grads = {"a": jnp.array([6.0, 0.0]), "b": jnp.array([[0.0], [8.0]])}
    steps = {"a": jnp.zeros(2), "b": jnp.full((2, 1), 2.0**0.5)}
    loss, updates = jnp.float32(9), jnp.int32(5)
    norm = optax.tree.norm(grads)
    metrics = optimizer_metrics(loss, norm, steps, params, updates)
    assert {k: pytest.approx(float(v)) for k, v in metrics.items()} == {
        "opt/loss": 9,
        "opt/grad_norm": 10,
        "opt/grad_rms": 5,  # 10 / sqrt(4)
        "opt/update_rms": 1,
        "opt/param_rms": 2.5,
        "opt/param_count": 4,
        "opt/updates": 5,
        "opt/nonfinite": 0,
    }
    norm = jnp.float32(jnp.inf)
    metrics = optimizer_metrics(loss, norm, steps, params, updates)
    assert metrics["opt/nonfinite"] == 1
