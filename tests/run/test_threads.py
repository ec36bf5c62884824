"""A program ends although something that cannot be interrupted goes on."""

import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import wait
from pathlib import Path

import pytest

from dreamer.run import threads

ROOT = Path(__file__).resolve().parents[2]

# Python's own end crashes in XLA's compiler, hence the real one.
COMPILING = """
import threading
import jax, jax.numpy as jnp
from dreamer.run import threads

def program(x):
    for i in range(100):
        x = jnp.sin(x @ x) + jnp.sort(x, 0) * i
        x = jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, None, 5)[0]
    return x

traced = threading.Event()

def compile():
    lowered = jax.jit(program).lower(jax.ShapeDtypeStruct((33, 33), "float32"))
    traced.set()
    lowered.compile()
    print("compiled", flush=True)

def main():
    threads.start("compile", compile)
    traced.wait()
    print("leaves")
    {end}

threads.run_program(main)
"""
# Small pieces, with one left at their end: glibc keeps what lies before it.
FREED = """
import resource
from dreamer.run import threads

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20

class Compiler:
    def lower(self, *args):
        return self
    def compile(self):
        pieces = [bytes(1000) for _ in range(200_000)]
        self.last = pieces[-1]

before, compiler = resident(), Compiler()
threads.start_compiling(compiler).result()
print(resident() - before)
"""
SHORT = """
import sys
from dreamer.run import threads
print(threads.start("short", len, "abc").result(), threads.running())
threads.run_program(lambda: {value})
"""


def run(script, **streams):
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=buffered,
        **streams,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("end", "code", "error"),
    [("return 75", 75, ""), ("raise OSError('disk')", 1, "OSError: disk\n")],
)
def test_a_program_ends_while_xla_compiles(end, code, error):
    ended = run(COMPILING.replace("{end}", end))
    assert (ended.returncode, ended.stdout) == (code, "leaves\n")
    assert ended.stderr.endswith(error)
    assert bool(ended.stderr) == bool(error), ended.stderr


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (COMPILING.replace("{end}", "return 75"), 75),
        (COMPILING.replace("{end}", "raise OSError('disk')"), 1),
        (SHORT.format(value="0"), 0),
        (SHORT.format(value="1 / 0"), 1),
        (SHORT.format(value="print('x', flush=True) or 7"), 7),
    ],
)
def test_output_that_cannot_be_written_changes_nothing(script, code):
    with open("/dev/full", "w") as full:
        assert run(script, stdout=full, stderr=full).returncode == code


@pytest.mark.parametrize(
    ("value", "code"), [("7", 7), ("sys.exit(2)", 2), ("1 / 0", 1)]
)
def test_a_program_ends_as_usual_when_nothing_goes_on(value, code):
    ended = run(SHORT.format(value=value))
    assert (ended.returncode, ended.stdout) == (code, "3 False\n")
    assert ("ZeroDivisionError" in ended.stderr) == (value == "1 / 0")


def test_results_and_errors_come_out():
    go_on = threading.Event()
    future = threads.start("waits", go_on.wait)
    assert threads.running()
    assert any(x.name.startswith("waits") for x in threading.enumerate())
    assert not future.done()
    go_on.set()
    assert future.result(60) is True
    failed = threads.start("fails", int, "x")
    wait([failed])
    with pytest.raises(ValueError, match="invalid literal"):
        failed.result()


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library than glibc"
)
def test_memory_that_compiling_has_freed_is_given_back():
    ended = run(FREED)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 100  # MB, of 200
