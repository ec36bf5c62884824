"""Measures the agent beside the limits of the machine it runs on.

    python scripts/bench.py update --configs size12m
    python scripts/bench.py all --json bench.json

What: `update`, `policy`, `replay`, `env`, `startup`, `run`, `save` or `all`;
then presets and flags as in training, and `--json FILE`.  `update --devices N`
compares an update on one device with the same shared by up to N; with
`--jax.platform cpu` they are simulated, which shows that it works and not how
fast it would be.

Every time is a median over repeats after a warm-up, with its spread (10th to
90th percentile).  The same run measures a large matrix product in the compute
dtype, a memory copy and a plain emulator loop, and results are shown as a
share of those, so that figures of different machines can be compared.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

# Programs that are measured beside this one need the GPU's memory too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # noqa: E402
from bench_agent import (  # noqa: E402
    bench_devices,
    bench_policy,
    bench_update,
    simulate,
)
from bench_data import (  # noqa: E402
    bench_env,
    bench_replay,
    bench_save,
    check_atari,
)
from bench_run import bench_run, bench_startup, check_trains  # noqa: E402
from bench_table import row  # noqa: E402

from dreamer.command import Parser, say, whole_number  # noqa: E402
from dreamer.config import Config  # noqa: E402
from dreamer.options import ConfigError, shown  # noqa: E402
from dreamer.places import home  # noqa: E402
from dreamer.run.device import select_device  # noqa: E402
from dreamer.run.faults import explain  # noqa: E402
from dreamer.settings import load_or_exit  # noqa: E402

BENCHES = {
    "update": bench_update,
    "policy": bench_policy,
    "replay": bench_replay,
    "env": bench_env,
    "startup": bench_startup,
    "run": bench_run,
    "save": bench_save,
}


def main(argv: list[str]) -> int:
    """Command line; returns the exit code."""
    try:
        flags = parse(argv)
    except ConfigError as error:
        say("bench", error)
        return 2
    config = load_or_exit(flags.more, "bench")
    try:
        if flags.what in ("env", "all"):
            check_atari(config)
        if flags.what in ("startup", "run", "all"):
            check_trains(config)
        results = measure(flags, config)
    except ConfigError as error:
        say("bench", error)
        return 2
    except Exception as error:
        reason = explain(error, config)
        if reason is None:
            raise
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    if flags.json:
        flags.json.write_text(json.dumps(results, indent=1))
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """What to measure, the flags of this program, and `more` for training.

    Raises:
      ConfigError: something is not as it should be.
    """
    usage = "%(prog)s WHAT [options] [flags of dreamer.train]"
    parser = Parser("scripts/bench.py", __doc__, usage)
    about = "file for the numbers"
    parser.add_argument("--json", type=home, metavar="FILE", help=about)
    about = "compares an update on up to so many devices"
    number = whole_number(1, 65536)
    parser.add_argument("--devices", type=number, metavar="N", help=about)
    flags, flags.more = parser.parse_known_args(argv or ["--help"])
    flags.what, *flags.more = flags.more or [""]
    if flags.what not in (*BENCHES, "all"):
        allowed = ", ".join([*BENCHES, "all"])
        raise ConfigError(f"{shown(flags.what)}: expected one of {allowed}")
    if flags.devices and flags.what != "update":
        raise ConfigError("--devices: expected with `update` alone")
    path = flags.json
    if path and (
        path.is_dir() or not os.access(path.absolute().parent, os.W_OK)
    ):
        raise ConfigError(f"--json {path}: cannot write there")
    if not any(x.partition("=")[0] == "--configs" for x in flags.more):
        flags.more = ["--configs", "atari100k", "size1m", *flags.more]
    return flags


def measure(flags: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Runs the benchmarks that were asked for; what goes to the JSON file."""
    if flags.devices and config.jax.platform == "cpu":
        simulate(flags.devices)
    dtype = select_device(config.jax)
    device = jax.devices()[0].device_kind
    print(f"{device}, {os.cpu_count()} cores, JAX {jax.__version__},")
    print(f"{' '.join(flags.more)}, {dtype}; median (10%..90%)\n")
    results: dict[str, Any] = {
        "device": device,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "dtype": str(dtype),
        "arguments": flags.more,
    }
    for name in BENCHES if flags.what == "all" else [flags.what]:
        print(f"[{name}]")
        extra = (flags.more,) if name == "startup" else ()
        if name == "env" and "update" in results:
            extra = (results["update"][1]["ms"],)
        bench = bench_devices if flags.devices else BENCHES[name]
        extra = (flags.devices,) if flags.devices else extra
        results[name] = bench(config, dtype, *extra)
    if flags.what == "all" and jax.default_backend() == "cpu":
        row("everything on a GPU or TPU", "not measured", "none here")
    return results


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
