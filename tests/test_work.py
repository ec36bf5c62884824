"""Counted work: what an update computes, against committed figures.

Times are noisy, counts are not. A change that makes an update compute more
shows here; one that is meant to changes the figures, with a line in the
changelog.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import bench  # noqa: E402
import bench_agent  # noqa: E402
import count_work  # noqa: E402
import gpu_program  # noqa: E402
import scaling  # noqa: E402
from count_work import (  # noqa: E402
    count_collectives,
    count_flops,
    count_launches,
    count_program,
)

from dreamer.agent import convolve  # noqa: E402
from dreamer.settings import load  # noqa: E402
from tests.refusals import outcome  # noqa: E402

# GFLOP of one update on 16 x 64 images of 64 x 64 x 3 on a CPU.
UPDATE = {"size1m": 89.0848, "size12m": 1128.7700}

# Kernels that one of size12m starts on an H200 (JAX 0.10).
KERNELS = 4760


def update_of(size, dtype=np.float32):
    config = load(["--configs", "atari100k", size, "--logdir", "unused"])
    agent = bench_agent.agent_for(config, np.dtype(dtype))
    return agent.update, bench_agent.update_shapes(agent, config)


@pytest.mark.parametrize("size", UPDATE)
def test_an_update_computes_what_it_did(size):
    update, shapes = update_of(size)
    flops = count_flops(update, *shapes)
    assert flops / 1e9 == pytest.approx(UPDATE[size], rel=1e-3)


def test_time_loops_do_only_what_has_to_follow_in_time(monkeypatch):
    """On a GPU, every operation in there counts as often as there are steps.

    The loop over observed steps gives deter, stoch and log-probabilities, and
    nothing that its gradient would have to keep; its way back reads what was
    computed for all steps at once; and no loop casts kernels at every step.
    """
    monkeypatch.setattr(convolve, "on_one_cpu", lambda: False)
    update, shapes = update_of("size1m", jnp.bfloat16)
    found = list(loops(jax.make_jaxpr(update)(*shapes).jaxpr))
    time_loops = [loop for loop in found if matrices(loop)]
    assert len(time_loops) == 3
    by_length = {
        (x.params["length"], x.params["reverse"]): x for x in time_loops
    }
    observe, imagine = by_length[64, False], by_length[15, False]
    assert results_of_each_step(observe) == 3
    assert results_of_each_step(imagine) == 3  # deter, stoch, action
    assert results_of_each_step(by_length[64, True]) == 4  # as many gradients
    for loop in time_loops:
        assert {x.dtype for x in matrices(loop)} == {jnp.dtype(jnp.bfloat16)}


def loops(jaxpr):
    """Equations of all scans, inner ones too."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            yield eqn
        for inner in count_work.inner_programs(eqn):
            yield from loops(inner)


def matrices(loop):
    """What is the same at every step and has more than one axis."""
    inside = loop.params["jaxpr"].in_avals
    read = len(of_each_step(loop.invars, inside))
    carried = len(loop.outvars) - results_of_each_step(loop)
    same = inside[: len(inside) - read - carried]
    return [x for x in same if x.ndim > 1]


def results_of_each_step(loop):
    return len(of_each_step(loop.outvars, loop.params["jaxpr"].out_avals))


def of_each_step(outside, inside):
    """Those that have an axis of time around the loop alone."""
    pairs = zip(outside, inside, strict=True)
    return [x for x, part in pairs if x.aval.ndim > part.ndim]


PROGRAM = """
HloModule jit_update

%body (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %g = f32[2]{0} get-tuple-element(%x), index=0
  %a = f32[2]{0} fusion(%g), kind=kLoop, calls=%f
  ROOT %b = (f32[2]{0}, u8[9]{0}) custom-call(%a), custom_call_target="gemm"
}

%called (y: f32[2]) -> f32[2] {
  ROOT %c = f32[2]{0} copy(%y)
}

ENTRY %main (x.1: f32[2]) -> f32[2] {
  %w = f32[2]{0} while(%x.1), condition=%c, body=%body, TRIPS metadata={op_name="jit(f)/observe/while"}
  %d = f32[2]{0} call(%w), to_apply=%called
  ROOT %e = f32[2]{0} fusion(%d), kind=kLoop, calls=%f
}
"""  # noqa: E501


def test_kernels_that_a_gpu_would_start_are_counted():
    trips = 'backend_config={"known_trip_count":{"n":"64"}},'
    loops, outside = count_launches(PROGRAM.replace("TRIPS", trips))
    assert loops == [(64, 2, "jit(f)/observe/while")]
    assert outside == 2
    with pytest.raises(ValueError, match="unknown length"):
        count_launches(PROGRAM.replace("TRIPS", ""))


@pytest.mark.long
@pytest.mark.skipif(
    bool(gpu_program.missing_plugin()), reason=gpu_program.missing_plugin()
)
def test_an_update_starts_no_more_kernels_than_it_did():
    """Compiled for a GPU that is not there."""
    words = ["--configs", "atari100k", "size12m", "--logdir", "unused"]
    compiled, _ = gpu_program.compile_update(load(words))
    found, outside = count_launches(compiled.as_text())
    total = outside + sum(times * kernels for times, kernels, _ in found)
    assert total == pytest.approx(KERNELS, rel=0.02)


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


def test_what_devices_exchange_is_counted():
    text = """
  %a = f32[2,3]{1,0} all-reduce(%x), channel_id=1
  %b = (bf16[4]{0}, f32[5]{0}) all-reduce(%x, %y), channel_id=2
  %c = (f32[8]{0}, f32[64]{0}) all-gather-start(%x), channel_id=3
  %d = f32[64]{0} all-gather-done(%c)
  %e = f32[7]{0} add(%x, %y)
"""
    compiled = SimpleNamespace(as_text=lambda: text)
    found = count_collectives(compiled)
    assert found["all-reduce"] == 4 * 6 + 2 * 4 + 4 * 5
    assert found["all-gather"] == 4 * 64
    assert found["all-to-all"] == 0


def test_exchanges_on_paper():
    # A ring passes on what each of n has n - 1 times, twice, in n pieces.
    assert scaling.all_reduce(8e9, 1) == 0
    assert scaling.all_reduce(8e9, 8) == pytest.approx(
        2 * 7 * 1e9 / scaling.LINK
    )
    # Among servers, GPUs exchange an eighth each.
    among = scaling.all_reduce(8e9, 64) - scaling.all_reduce(8e9, 8)
    assert among == pytest.approx(2 * 7 / 8 * 1e9 / scaling.NETWORK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "1"], "--devices: 1: expected a whole number from 2"),
        (["--devices=x"], "--devices: x: expected a whole number from 2"),
        (["--devices"], "--devices: expected one argument"),
        (["--devices=3"], "--devices 3: cannot share batch_size=16 evenly"),
        (["--devices", "2", "--sed", "1"], "mean seed?"),
    ],
)
def test_scaling_refuses_in_one_line(tmp_path, arguments, message):
    line = outcome("scaling", scaling.main, arguments, tmp_path)
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["updat"], "updat: expected one of update, policy, replay,"),
        (["--json", "x"], "'': expected one of update, policy, replay,"),
        (["update", "--json"], "--json: expected one argument"),
        (["update", "--json", "/none/x"], "--json /none/x: cannot write"),
        (["update", "--configs", "size1"], "did you mean size1m?"),
        (["env", "--task", "gym_CartPole-v1"], "env measures Atari games"),
        (["update", "--devices", "two"], "--devices: two: expected a whole"),
        (["update", "--devices=0"], "--devices: 0: expected a whole number"),
        (["policy", "--devices", "2"], "--devices: expected with `update`"),
        (["update", "--devices", "64"], "jax.devices=64: JAX finds"),
        # Before anything is measured.
        (["all", "--task", "gym_CartPole-v1"], "env measures Atari games"),
        (["all", "--run.train_ratio", "0"], "run.train_ratio=0: expected"),
        (["run", "--run.train_ratio", "0"], "run.train_ratio=0: expected"),
        (["startup", "--run.train_ratio", "0"], "run.train_ratio=0: expected"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    try:
        code = bench.main(arguments)
    except SystemExit as error:
        code = error.code
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert message in error
