"""Models with discrete latent sites, summed out datum by datum."""

import subprocess
import sys

import discrete_models as models
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import potential_energy

import numpyro_llc as nllc
from numpyro_llc.models import as_found, constrain, read_model, with_batches

AWAY = 0.1
"""How far from the centre, in every unconstrained coordinate, losses are looked at too."""


@pytest.fixture(scope="module", params=models.CASES, ids=str)
def case(request):
    return models.CASES[request.param]


@pytest.fixture(scope="module")
def reading(case):
    return read_model(case.model, case.args, None, center=case.center)


@pytest.fixture(scope="module")
def looked_at(case, reading):
    """Away from the centre: constrained values, losses, those of rows 3 and 1, and the slope."""
    program = with_batches(reading) if case.rows else reading.program
    z = jax.tree.map(lambda leaf: leaf + AWAY, reading.center)

    @jax.jit
    def look(z, arrays):
        losses, back = jax.vjp(lambda z: program.losses(z, arrays), z)
        (slope,) = back(jax.tree.map(jnp.ones_like, losses))
        rows = program.row_losses(z, arrays, jnp.array([3, 1])) if case.rows else None
        return losses, rows, slope

    values = constrain(reading.program, reading.program.parameters, z, reading.arrays)
    return values, *look(z, reading.arrays)


def _close(got, wanted):
    np.testing.assert_allclose(np.asarray(got, np.float64), wanted, rtol=2e-5, atol=2e-5)


def test_losses_are_those_by_hand(case, reading, looked_at):
    values, losses, *_ = looked_at
    assert list(losses) == [case.name]
    _close(reading.center_losses[case.name], case.oracle(case.center, *case.args))
    _close(losses[case.name], case.oracle(values, *case.args))


def test_a_batch_has_the_losses_of_its_rows(case, looked_at):
    values, _, rows, _ = looked_at
    if case.rows:
        _close(rows, case.oracle(values, *case.args)[[3, 1]])


def test_slopes_are_numbers(looked_at):
    *_, slope = looked_at
    assert all(np.all(np.isfinite(leaf)) for leaf in slope.values())


def test_number_of_data(case, reading):
    if case.num_data is None:
        counts = reading.data_counts[case.name]
        assert reading.num_data() == counts
    else:
        with pytest.raises(ValueError, match="they are one datum. Pass `num_data`"):
            reading.num_data()


def test_numpyros_own_potential_rises_as_much(case, reading, looked_at):
    if not case.is_numpyros:
        pytest.skip("NumPyro's own density is of another model.")
    program = reading.program
    model = enum(config_enumerate(case.model), program.enumeration.first_dim)

    @jax.jit
    def both(z, arrays):
        args, kwargs = program.arguments.join(arrays)
        losses = program.losses(z, arrays).values()
        ours = sum(map(jnp.sum, losses)) + program.prior_potential(z, arrays)
        return ours, potential_energy(model, args, kwargs, z, enum=True)

    here, there = (
        np.array(both(jax.tree.map(lambda leaf: leaf + shift, reading.center), reading.arrays))
        for shift in (0.0, AWAY)
    )
    ours, numpyros = there - here
    assert ours == pytest.approx(numpyros, rel=1e-4, abs=1e-4)
