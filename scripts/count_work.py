"""Counts the work of a JAX program without running it.

Floating-point operations come from the traced program: every matrix product
and convolution, times the iterations of the loops around it.  XLA's own
figure counts a loop's body once and is not used.  Bytes, loops, kernels and
what devices exchange come from the compiled program.  `scripts/bench.py`
prints these, and `tests/test_work.py` compares them with figures committed to
the repository.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(function: Callable, *args: Any) -> int:
    """Multiplications and additions of all matrix products and convolutions.

    Args:
      function: traceable by JAX, jitted or not.
      args: arrays or shapes.
    """
    traced = jax.make_jaxpr(function)(*args).jaxpr
    # Without what nobody uses, such as results that only a gradient led to.
    used, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    return _flops(used)


def _flops(jaxpr: core.Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            total += _dot_flops(eqn)
        elif name == "conv_general_dilated":
            total += _conv_flops(eqn)
        elif name == "cond":
            branches = eqn.params["branches"]
            total += max(_flops(branch.jaxpr) for branch in branches)
        else:
            times = eqn.params["length"] if name == "scan" else 1
            total += times * sum(
                _flops(inner) for inner in inner_programs(eqn)
            )
    return total


def inner_programs(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Programs that an operation calls: loops, jit, custom derivatives."""
    for value in eqn.params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _dot_flops(eqn: core.JaxprEqn) -> int:
    (contract, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    depth = math.prod(shape[axis] for axis in contract)
    return 2 * depth * math.prod(eqn.outvars[0].aval.shape)


def _conv_flops(eqn: core.JaxprEqn) -> int:
    kernel = eqn.invars[1].aval.shape
    outputs = eqn.params["dimension_numbers"].rhs_spec[0]
    per_output = math.prod(kernel) // kernel[outputs]
    return 2 * per_output * math.prod(eqn.outvars[0].aval.shape)


def count_program(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes, loops and operations of a compiled program.

    Returns:
      `temp_bytes`: memory beside inputs and outputs; `loops`: while loops;
      `kernels`: operations left after fusion, those inside loops once.
    """
    operations = re.findall(
        r" (fusion|dot|convolution|custom-call|sort|while)\(",
        compiled.as_text(),
    )
    return {
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "loops": operations.count("while"),
        "kernels": len(operations) - operations.count("while"),
    }


COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
OPERATION = re.compile(r" = (?:\(.*?\)|\S+) ([\w\-]+)\(")
# Of these, a program for a GPU makes no kernel.
NO_KERNEL = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
NO_KERNEL |= {"while", "call", "after-all", "opt-barrier", "partition-id"}


def count_launches(text: str) -> tuple[list[tuple[int, int, str]], int]:
    """Kernels that a program starts on a GPU, whose text this is.

    Returns:
      Of every loop: iterations, kernels in each, and JAX's name of it; and
      the number of kernels outside of loops.

    Raises:
      ValueError: a loop does not say how many iterations it makes.
    """
    bodies, entry, name = {}, "", ""
    for line in text.splitlines():
        if begins := COMPUTATION.match(line):
            name = begins[2]
            bodies[name] = []
            entry = name if begins[1] else entry
        elif name:
            bodies[name].append(line)
    loops = []

    def kernels(computation: str, times: int) -> int:
        count = 0
        for line in bodies[computation]:
            found = OPERATION.search(line)
            operation = found[1] if found else "parameter"
            if operation == "while":
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                if not trips:
                    raise ValueError(f"loop of unknown length: {line.strip()}")
                body = re.search(r"body=%?([\w.\-]+)", line)[1]
                inner = times * int(trips[1])
                label = re.search(r'op_name="([^"]*)"', line)
                each = kernels(body, inner)
                loops.append((inner, each, label[1] if label else body))
            elif operation == "call":
                called = re.search(r"to_apply=%?([\w.\-]+)", line)[1]
                count += kernels(called, times)
            else:
                count += operation not in NO_KERNEL
        return count

    outside = kernels(entry, 1)
    return loops, outside


COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2}
WIDTHS |= {"u16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8}


def count_collectives(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes that come out of each kind of collective, on one device.

    Those inside loops count once.
    """
    found = dict.fromkeys(COLLECTIVES, 0)
    line = re.compile(rf" = (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(")
    for result, kind, start in line.findall(compiled.as_text()):
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", result)
        if start and kind != "all-reduce":  # gives its inputs as well
            shapes = [x for x in shapes if x != ("u32", "")]
            shapes = shapes[len(shapes) // 2 :]
        for dtype, shape in shapes:
            sizes = [int(x) for x in shape.split(",") if x]
            found[kind] += math.prod(sizes) * WIDTHS[dtype]
    return found
