"""What tells models apart in a folder: hashes of what they compute, the same in every process."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_llc.models._computes import computes


def walks(order, step):
    """A walk of two numbers, which a scan carries in this order."""

    def run(z, x):
        def turn(carry, row):
            a, b = carry if order == "ab" else carry[::-1]
            a, b = step(a, b, row)
            return ((a, b) if order == "ab" else (b, a)), a * b

        start = (z, 2.0 * z) if order == "ab" else (2.0 * z, z)
        return jax.lax.scan(turn, start, x)[1].sum()

    return run


def lagged(lag):
    """A loss of each row by that before it, or by one earlier; all carried begin with zero."""

    def run(z, x):
        def turn(carry, row):
            return (row, *carry[:-1]), (row - z * carry[lag]) ** 2

        return jax.lax.scan(turn, (0.0 * z,) * 3, x)[1].sum()

    return run


def not_returned(number):
    def run(z, x):
        _ = z * number  # as a deterministic site
        return z + x.sum()

    return run


def plus(a, b, row):
    return a + row, b - a


FUNCTIONS = {
    "minus": lambda z, x: z - x.sum(),
    "minus, turned": lambda z, x: x.sum() - z,
    "closed over 1": lambda z, x: z * np.full(3, 1.0).sum() + x.sum(),
    "closed over 2": lambda z, x: z * np.full(3, 2.0).sum() + x.sum(),
    "walk": walks("ab", plus),
    "walk of the other": walks("ab", lambda a, b, row: (a - b, b + row)),
    "walk of the same start": walks("ab", lambda a, b, row: (a + row, b - 2.0 * a)),
    "of a choice": lambda z, x: jax.lax.cond(z > 0, jnp.sin, jnp.cos, x.sum()),
    "of the other choice": lambda z, x: jax.lax.cond(z > 0, jnp.cos, jnp.sin, x.sum()),
    "of another condition": lambda z, x: jax.lax.cond(z > 1, jnp.sin, jnp.cos, x.sum()),
    "loop": lambda z, x: jax.lax.while_loop(lambda c: c < 9, lambda c: c * x.sum(), z),
    "longer loop": lambda z, x: jax.lax.while_loop(lambda c: c < 10, lambda c: c * x.sum(), z),
    "other loop": lambda z, x: jax.lax.while_loop(lambda c: c < 9, lambda c: c + x.sum(), z),
    **{f"by lag {lag}": lagged(lag) for lag in range(3)},
    **{f"beside {number}": not_returned(number) for number in (2.0, 3.0)},
    "added at": lambda z, x: (x * 1.0).at[0].add(z).sum(),
    "added at, of twice": lambda z, x: (x * 2.0).at[0].add(z).sum(),
    "multiplied at": lambda z, x: (x * 2.0).at[0].multiply(z).sum(),
    "compiled": lambda z, x: jax.jit(lambda a, b: a - b)(z, x.sum()) * 3.0,
    "compiled, turned": lambda z, x: jax.jit(lambda a, b: a - b)(x.sum(), z) * 3.0,
}


def of(function):
    return computes(jax.make_jaxpr(function)(1.5, jnp.arange(4.0)))


def test_what_computes_something_else_has_another_hash():
    assert len({of(function) for function in FUNCTIONS.values()}) == len(FUNCTIONS)


def test_a_hash_does_not_depend_on_the_order_of_what_a_scan_carries():
    """NumPyro puts the leaves of a distribution in that of a set, which differs by process."""
    assert of(walks("ba", plus)) == of(walks("ab", plus))


@pytest.mark.slow
def test_a_time_series_has_one_hash_in_every_process():
    code = (
        "import discrete_models as d; from numpyro_llc.models import read_model;"
        "c = d.CASES['hidden Markov model'];"
        "print(read_model(c.model, c.args, None, center=c.center).program.computes)"
    )
    tests = Path(__file__).parent
    found = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=tests,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in "012"
    }
    assert len(found) == 1
