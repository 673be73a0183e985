"""The tests' own compiler: in a hurry, but for tests that ask for the users'."""

import compiler
import jax
import jax.numpy as jnp
import pytest


@jax.jit
def _program(x):
    return (jnp.sin(x) * 2 + jnp.exp(x)).sum(), jnp.tanh(x) * 3 + x


def _fusions() -> int:
    text = _program.lower(jnp.ones(1000)).compile().as_text()
    return text.count(" fusion(")


@pytest.mark.real_compiler
def test_a_test_with_the_mark_sees_what_users_run():
    """Without it, a test of layouts and bits would judge programs that nobody runs."""
    given = _fusions()
    compiler.use(real=False)
    try:
        hurried = _fusions()
    finally:
        compiler.use(real=True)
    assert given == _fusions()
    assert (given == hurried) == compiler.ALL_REAL
