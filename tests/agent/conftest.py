"""Settings of the agent's tests."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Most of the time goes into compiling what then runs a few times."""
    name = "jax_disable_most_optimizations"
    jax.config.update(name, True)
    yield
    jax.config.update(name, False)


@pytest.fixture
def full_compilation(quick_compilation):
    """For what compilers could spoil: all their optimisations."""
    name = "jax_disable_most_optimizations"
    jax.config.update(name, False)
    yield
    jax.config.update(name, True)
