"""Clock, table and limits of the machine for the benchmarks.

Read first: bench.py, which says what is measured.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Rows = list[dict[str, Any]]


class Clock:
    """Repeats something and keeps median and spread, in seconds."""

    def __init__(
        self, action: Callable[[], Any], seconds: float = 5.0, least: int = 3
    ) -> None:
        jax.block_until_ready(action())
        times: list[float] = []
        start = time.perf_counter()
        while len(times) < least or (
            time.perf_counter() - start < seconds and len(times) < 2000
        ):
            before = time.perf_counter()
            jax.block_until_ready(action())
            times.append(time.perf_counter() - before)
        self.low, self.median, self.high = np.percentile(times, [10, 50, 90])

    def text(self) -> str:
        """Median and spread, in milliseconds."""
        low, middle, high = (
            f"{x * 1e3:.3g}" for x in (self.low, self.median, self.high)
        )
        return f"{middle} ({low}..{high})"


def row(what: str, value: str, beside: str = "", **numbers: Any) -> dict:
    """One line of the table; `numbers` go to the JSON file."""
    print(f"{what:36} {value:>26}  {beside}", flush=True)
    return {"what": what, "value": value, "beside": beside, **numbers}


def matmul_peak(dtype: np.dtype) -> float:
    """Operations per second of a large matrix product on random data."""
    size = 8192 if jax.default_backend() != "cpu" else 2048
    x, y = (
        jax.random.normal(jax.random.key(i), (size, size)).astype(dtype)
        for i in (0, 1)
    )
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / Clock(lambda: product(x, y), 2.0).low


def copy_rate() -> float:
    """Bytes per second read and written by a large copy on the host."""
    source = np.random.default_rng(0).random(2**25)  # 256 MB
    target = np.empty_like(source)

    def copy() -> None:
        np.copyto(target, source)

    return 2 * source.nbytes / Clock(copy, 1.0).low
