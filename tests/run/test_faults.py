"""Running out of memory is told in one line; other errors are left alone."""

import errno
import json
import subprocess
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.run import faults
from dreamer.run.faults import brief, explain
from dreamer.settings import load

CONFIG = load(["--configs", "atari100k", "size50m", "--logdir", "unused"])
DEVICE = "reduce batch_size=16 or batch_length=64, or take the preset size25m"
HOST = "reduce replay.size=5000000 or run.envs=1"


def raised(function, *args):
    with pytest.raises(Exception) as caught:
        function(*args)
    return caught.value


def test_xla_without_memory_on_a_cpu():
    error = raised(jnp.zeros, 10**15, jnp.uint8)
    assert explain(error, CONFIG) == (
        "out of memory: an allocation of 1000.0 TB failed; "
        f"{DEVICE}; or {HOST}"
    )


def test_a_program_that_needs_too_much():
    def square(x):
        return jnp.sort(x[:, None] * x[None, :]).sum(0)

    x = jnp.zeros(10**7)
    program = jax.jit(square).lower(x).compile()
    error = raised(lambda: program(x).block_until_ready())
    line = explain(error, CONFIG)
    assert line.startswith("out of memory: an allocation of ")
    assert "00.0 TB failed; reduce batch_size=16" in line


def test_numpy_and_python_without_memory():
    error = raised(np.zeros, (10**6, 10**9))
    assert isinstance(error, MemoryError)
    assert explain(error, CONFIG) == (
        f"out of memory: an allocation of 8005.1 TB failed; {HOST}"
    )
    error = raised(bytearray, 10**17)
    assert explain(error, CONFIG) == (
        f"out of memory: an allocation failed; {HOST}"
    )
    error = OSError(errno.ENOMEM, "Cannot allocate memory")  # of a fork
    assert explain(error, CONFIG).startswith("out of memory: an allocation")


LIMITED = """
import json, resource
import jax, jax.numpy as jnp, numpy as np
from dreamer.settings import load
from dreamer.run.faults import brief, explain

config = load(["--configs", "debug", "--logdir", "unused"])
jnp.zeros(3).block_until_ready()
pages = int(open("/proc/self/statm").read().split()[0])
size = pages * resource.getpagesize() + 200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (size, size))
lines = []
for make in (jnp.zeros, np.ones):
    try:
        make(10**9, np.float32)
    except Exception as error:
        lines.append(explain(error, config))
print(json.dumps(lines))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
def test_a_process_that_may_not_have_more():
    command = [sys.executable, "-c", LIMITED]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = json.loads(out.stdout)
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("out of memory: an allocation of 4.0 GB failed")


class Gpu:
    platform = "gpu"

    def memory_stats(self):
        return {"bytes_limit": 6 * 10**10}

    def __str__(self):
        return "cuda:0"


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate"
            " 3200000000 bytes.\nBufferAssignment OOM Debugging.\n",
            "an allocation of 3.2 GB failed",
        ),
        (
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate"
            " 8.00GiB.",
            "an allocation of 8.6 GB failed",
        ),
        (
            "RESOURCE_EXHAUSTED: Failed to allocate request for 2.99GiB"
            " (3206250496B) on device ordinal 0",
            "an allocation of 3.2 GB failed",
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of"
            " memory in memory space hbm. Used 21.95G of 15.48G hbm.",
            "a program needs 23.6 GB (16.6 GB available)",
        ),
        (
            "RESOURCE_EXHAUSTED: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
            "an allocation failed",
        ),
        (
            "INTERNAL: Failed to execute XLA Runtime executable: run time"
            " error: CUDNN_STATUS_ALLOC_FAILED\nin cuda_dnn.cc(6342)",
            "an allocation failed",
        ),
        (
            "INTERNAL: RET_CHECK failure (gpu_compiler.cc:3064) dnn_support"
            " != nullptr",
            "an allocation failed",
        ),
        (
            "INTERNAL: NCCL operation ncclGroupEnd() failed: unhandled cuda"
            " error. Last NCCL warning(error) log entry (may be unrelated)"
            " 'Cuda failure 2 'out of memory''.",
            "an allocation failed",
        ),
        (
            "INTERNAL: NCCL operation ncclCommInitRankConfig() failed:"
            " unhandled cuda error. Last NCCL warning(error) log entry (may"
            " be unrelated) 'Failed to CUDA calloc async 6291456000 bytes'.",
            "an allocation of 6.3 GB failed",
        ),
    ],
)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("fraction", [None, *faults.FRACTIONS])
def test_wordings_of_other_devices(
    message, what, fraction, together, monkeypatch
):
    """Of one process, and of one of several."""
    monkeypatch.setattr(jax, "local_devices", lambda: [Gpu()])
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: together)
    for name in faults.FRACTIONS:
        monkeypatch.delenv(name, raising=False)
    hint = ", set XLA_CLIENT_MEM_FRACTION=0.9 (by default 0.75)"
    if fraction:
        monkeypatch.setenv(fraction, "0.8")
        hint = ""
    assert explain(jax.errors.JaxRuntimeError(message), CONFIG) == (
        f"out of device memory: {what} on cuda:0, where JAX may use 60.0 GB;"
        f" {DEVICE}; end other programs on this GPU{hint}"
    )


@pytest.mark.parametrize(
    "message",
    [
        "INTERNAL: NCCL operation ncclAllReduce() failed: remote process"
        " exited or there was a network error.",
        "INTERNAL: Gloo all-reduce failed: Connection closed by peer",
        "UNAVAILABLE: connection reset",
    ],
)
def test_another_process_that_is_gone(message, monkeypatch):
    error = jax.errors.JaxRuntimeError(message)
    assert explain(error, CONFIG) is None
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    line = explain(error, CONFIG)
    assert line.startswith("another process of this run is gone; start all")
    assert message in line


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Out of memory while trying to allocate 1 bytes"),
        OSError(errno.ENOSPC, "No space left on device"),
        jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes differ"),
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Shared memory size limit exceeded:"
            " requested 73728, available: 65536"
        ),
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used"
            " 32.42M of 16.00M vmem."
        ),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_left_alone(error):
    assert explain(error, CONFIG) is None


def test_the_smallest_model_has_none_below():
    config = load(["--configs", "debug", "--logdir", "unused"])
    line = explain(raised(jnp.zeros, 10**15, jnp.uint8), config)
    assert "reduce batch_size=4 or batch_length=8; or reduce replay" in line


def burn():
    try:
        {}["x"]
    except KeyError as error:
        raise RuntimeError("motor is burning:\n  x=3\nTwice") from error


def test_a_traceback_in_brief():
    try:
        burn()
    except RuntimeError:
        trace = traceback.format_exc()
    assert brief(f"environment 0 failed:\n{trace}") == (
        "environment 0 failed: RuntimeError: motor is burning:"
    )
    assert brief(trace) == "RuntimeError: motor is burning:"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("environment 0 died without a word", None),
        ("XlaRuntimeError: INTERNAL:\n  of a\n\nkernel\x1b[0m", None),
        ("failed:\nTraceback (most recent call last):\n  File", None),
        ("", ""),
    ],
)
def test_what_has_no_exception_at_its_end_in_brief(text, line):
    expected = " ".join(text.split()).replace("\x1b", "\\x1b")
    assert brief(text) == (expected if line is None else line)
