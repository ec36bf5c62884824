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
from bench_data import bench_env, bench_replay, bench_save  # noqa: E402
from bench_run import bench_run, bench_startup  # noqa: E402
from bench_table import row  # noqa: E402

from dreamer.command import say  # noqa: E402
from dreamer.options import ConfigError  # noqa: E402
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
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    what, *rest = argv
    if what != "all" and what not in BENCHES:
        allowed = ", ".join([*BENCHES, "all"])
        say("bench", f"{what!r} is not one of {allowed}")
        return 2
    try:
        name, rest = taken("--json", rest)
        number, rest = taken("--devices", rest)
        path, devices = Path(name) if name else None, 0
        if number and (what != "update" or not number.isdecimal()):
            raise ConfigError("--devices needs `update` and a whole number")
        if number:
            devices = int(number)
    except ConfigError as error:
        say("bench", error)
        return 2
    if path and (
        path.is_dir() or not os.access(path.absolute().parent, os.W_OK)
    ):
        say("bench", f"--json {path}: cannot write there")
        return 2
    if not any(x.partition("=")[0] == "--configs" for x in rest):
        rest = ["--configs", "atari100k", "size1m", *rest]
    config = load_or_exit(rest, "bench")
    try:
        if devices and config.jax.platform == "cpu":
            simulate(devices)
        dtype = select_device(config.jax)
        device = jax.devices()[0].device_kind
        print(f"{device}, {os.cpu_count()} cores, JAX {jax.__version__},")
        print(f"{' '.join(rest)}, {dtype}; median (10%..90%)\n")
        results: dict[str, Any] = {
            "device": device,
            "cores": os.cpu_count(),
            "jax": jax.__version__,
            "dtype": str(dtype),
            "arguments": rest,
        }
        for name in BENCHES if what == "all" else [what]:
            print(f"[{name}]")
            extra = (rest,) if name == "startup" else ()
            if name == "env" and "update" in results:
                extra = (results["update"][1]["ms"],)
            bench = bench_devices if devices else BENCHES[name]
            extra = (devices,) if devices else extra
            results[name] = bench(config, dtype, *extra)
        if what == "all" and jax.default_backend() == "cpu":
            row("everything on a GPU or TPU", "not measured", "none here")
    except ConfigError as error:
        say("bench", error)
        return 2
    except Exception as error:
        reason = explain(error, config)
        if reason is None:
            raise
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    if path:
        path.write_text(json.dumps(results, indent=1))
    return 0


def taken(flag: str, argv: list[str]) -> tuple[str, list[str]]:
    """The value of a flag, "" if it is not given, and the other words.

    Raises:
      ConfigError: it is given twice or has no value.
    """
    given = [x for x in argv if x.partition("=")[0] == flag]
    if not given:
        return "", argv
    at = argv.index(given[0])
    _, equals, value = given[0].partition("=")
    value = value if equals else "".join(argv[at + 1 : at + 2])
    if not value or value.startswith("--") or given[1:]:
        raise ConfigError(f"{flag} needs one value")
    return value, argv[:at] + argv[at + (1 if equals else 2) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
