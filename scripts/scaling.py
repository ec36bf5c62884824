#!/usr/bin/env python
"""What several GPUs would give, on paper, checked against a compiled program.

    python scripts/scaling.py --configs atari100k size200m --devices 8

Presets and flags as in training.  Compiles the update for as many simulated
devices, runs nothing, and prints what they exchange: of gradients (data) and
of divided parameters (fsdp), beside what arithmetic expects.  Then the time of
an update at best: counted operations at a share of the peak, plus what has to
travel over links.  The figures assumed for that are NVIDIA's for H100 and H200
servers; that the share is reached is an assumption, not a measurement, and
the time steps of a sequence, which follow one another on any number of GPUs,
cost more than arithmetic says.  Next: bench.py update --devices, which
measures.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import jax  # noqa: E402
import numpy as np  # noqa: E402
from bench_agent import agent_for, simulate, update_shapes  # noqa: E402
from count_work import count_collectives, count_flops  # noqa: E402

from dreamer.agent.layout import Layout  # noqa: E402
from dreamer.command import Parser, say, whole_number  # noqa: E402
from dreamer.config import Config  # noqa: E402
from dreamer.options import ConfigError  # noqa: E402
from dreamer.settings import load_or_exit  # noqa: E402

PEAK = 989e12  # operations per second, dense bfloat16
SHARE = 0.5  # of it, which an update reaches
LINK = 450e9  # bytes per second and direction between GPUs of one server
NETWORK = 50e9  # the same per GPU between servers of eight
SERVER = 8


def main(argv: list[str]) -> int:
    """Command line; returns the exit code."""
    usage = "%(prog)s [--devices N] [flags of dreamer.train]"
    parser = Parser("scripts/scaling.py", __doc__, usage)
    number = whole_number(2, 65536)
    about = "devices to compile for (default: 8)"
    parser.add_argument(
        "--devices", type=number, default=8, metavar="N", help=about
    )
    try:
        flags, more = parser.parse_known_args(argv or ["--help"])
    except ConfigError as error:
        say("scaling", error)
        return 2
    devices, config = flags.devices, load_or_exit(more, "scaling")
    if config.batch_size % devices:
        say(
            "scaling",
            f"--devices {devices}: cannot share batch_size="
            f"{config.batch_size} evenly",
        )
        return 2
    simulate(devices)
    exchanged(config, devices)
    on_paper(config)
    return 0


def exchanged(config: Config, devices: int) -> None:
    """Prints bytes of collectives in the compiled updates."""
    print(f"Exchanged in an update by {devices} devices, MB per device:")
    for name, fsdp in (("data", False), ("fsdp", True)):
        layout = Layout(jax.devices()[:devices], fsdp)
        agent = agent_for(config, np.dtype(np.float32), layout)
        shapes = update_shapes(agent, config)
        compiled = agent.update.lower(*shapes).compile()
        found = count_collectives(compiled)
        numbers = ", ".join(
            f"{kind} {count / 1e6:,.1f}"
            for kind, count in found.items()
            if count
        )
        params = sum(x.size * 4 for x in jax.tree.leaves(shapes[0].params))
        print(f"  {name}: {numbers}; parameters are {params / 1e6:,.1f}")


def on_paper(config: Config) -> None:
    """Prints the time of an update on 1, 8 and 64 GPUs at best."""
    agent = agent_for(config, np.dtype(np.float32))
    shapes = update_shapes(agent, config)
    flops = count_flops(agent.update, *shapes)
    params = sum(x.size * 4 for x in jax.tree.leaves(shapes[0].params))
    each = flops / config.batch_size
    print(
        f"On paper, float32 gradients, {flops / 1e12:.2f} TFLOP per update of"
        f" {config.batch_size} sequences at {SHARE:.0%} of"
        f" {PEAK / 1e12:.0f} TFLOP/s:"
    )
    for count in (1, 8, 64):
        sequences = max(config.batch_size, count)
        compute = each * sequences / count / (SHARE * PEAK)
        travel = all_reduce(params, count)
        speed = sequences * config.batch_length / (compute + travel)
        print(
            f"  {count:3} GPUs, {sequences:3} sequences: {compute * 1e3:6.2f}"
            f" ms computing, {travel * 1e3:5.2f} ms exchanging,"
            f" {speed:12,.0f} time steps/s"
        )


def all_reduce(size: float, count: int) -> float:
    """Seconds to sum `size` bytes of all GPUs: in servers, then among them.

    Dividing parameters costs as much: gradients are summed to where their
    part is, and parameters go back the same way.
    """
    inside = min(count, SERVER)
    servers = -(-count // SERVER)
    seconds = 2 * (inside - 1) / inside * size / LINK
    part = size / inside  # what a GPU exchanges with those of other servers
    return seconds + 2 * (servers - 1) / servers * part / NETWORK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
