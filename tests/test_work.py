"""Counted work: what an update computes, against committed figures.

Times are noisy, counts are not. A change that makes an update compute more
shows here; one that is meant to changes the figures, with a line in the
changelog.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import bench  # noqa: E402
import bench_agent  # noqa: E402
from count_work import count_flops, count_program  # noqa: E402

from dreamer.config import load  # noqa: E402

# GFLOP of one update on 16 x 64 images of 64 x 64 x 3 on a CPU.
UPDATE = {"size1m": 89.0848, "size12m": 1128.7700}


def shapes(size):
    config = load(["--configs", "atari100k", size, "--logdir", "unused"])
    agent = bench_agent.agent_for(config, np.dtype(np.float32))
    state = jax.eval_shape(lambda: agent.init(0))
    batch = jax.eval_shape(lambda: bench_agent.random_batch(agent, config))
    return agent, state, batch


@pytest.mark.parametrize("size", UPDATE)
def test_an_update_computes_what_it_did(size):
    agent, state, batch = shapes(size)
    flops = count_flops(agent.update, state, batch, jax.random.key(0))
    assert flops / 1e9 == pytest.approx(UPDATE[size], rel=1e-3)


def test_products_and_loops_are_counted():
    x, y = jnp.ones((2, 3, 5)), jnp.ones((2, 5, 7))
    assert count_flops(jnp.matmul, x, y) == 2 * 2 * 3 * 5 * 7
    kernel = jnp.ones((5, 5, 3, 8))
    image = jnp.ones((4, 16, 12, 3))

    def conv(image, kernel):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    per_pixel = 2 * 25 * 3 * 8
    assert count_flops(conv, image, kernel) == 4 * 16 * 12 * per_pixel

    @jax.jit
    def loop(carry):
        return jax.lax.scan(lambda c, _: (c @ c, None), carry, None, 10)[0]

    assert count_flops(loop, jnp.ones((4, 4))) == 10 * 2 * 4**3


def test_programs_are_counted():
    def loop(carry):
        return jax.lax.scan(lambda c, _: (c @ c, None), carry, None, 10)[0]

    counted = count_program(jax.jit(loop).lower(jnp.ones((4, 4))).compile())
    assert counted["loops"] == 1
    assert counted["kernels"] >= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["updat"], ["updat", "update"]),
        (["update", "--json"], ["--json"]),
        (["update", "--configs", "size1"], ["size1", "size1m"]),
        (["env", "--configs", "debug", "--task", "gym_CartPole-v1"], ["gym"]),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, words):
    try:
        code = bench.main(arguments)
    except SystemExit as error:
        code = error.code
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert all(word in error for word in words)
