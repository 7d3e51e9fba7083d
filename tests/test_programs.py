"""Programs that modelers write: each has its λ̂, or is refused by a sentence that says why."""

import functools

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density
from programs import REFUSED, WORKS

import numpyro_llc as nllc


def loss(program, values):
    """NumPyro's own negative log likelihood at constrained values, and the largest term."""
    arrays = {name: np.asarray(value, np.float32) for name, value in values.items()}
    return -sum(np.asarray(term, np.float64).sum() for term in terms_of(program)(arrays))


@functools.cache
def terms_of(program):
    factors = program.settings.get("likelihood_factors", ())

    @jax.jit
    def terms(arrays):
        _, trace = log_density(program.model, program.args, {}, arrays)
        return [
            site["fn"].log_prob(site["value"])
            for name, site in trace.items()
            if site["type"] == "sample"
            and (site["is_observed"] and "__" not in name)
            and (name in factors or not hasattr(site["fn"], "log_factor") or name == "alive")
        ]

    return terms


LOOPS = ("autoregression", "gaussian process", "logistic growth", "forward algorithm")
"""Loops and solvers. The second tier samples all programs, which takes their gradients too."""


@pytest.mark.parametrize("name", WORKS)
def test_the_loss_at_the_center_is_that_of_numpyro_and_has_a_gradient(name):
    program = WORKS[name]
    local = nllc.localize(program.model, center=program.center, **program.settings)
    reading = local.read(program.args, None)
    found = sum(np.sum(losses) for losses in reading.center_losses.values())
    assert found == pytest.approx(loss(program, program.center), rel=1e-4)
    if name in LOOPS:
        target, _ = local.target(reading)
        z = jax.tree.map(lambda center: np.asarray(center) + np.float32(0.01), reading.center)
        value, gradient = jax.jit(jax.value_and_grad(target.potential))(z)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize("name", WORKS)
def test_each_draw_has_the_loss_of_numpyro(name):
    program = WORKS[name]
    local = nllc.localize(program.model, center=program.center, **program.settings)
    lengths = {"num_warmup": 50, "num_samples": 40, "num_chains": 2}
    idata = nllc.estimate_llc(jax.random.key(0), local, program.args, progress_bar=False, **lengths)
    draws, beta = idata["posterior"], idata.attrs["inverse_temperature"]
    at_center = loss(program, program.center)
    for draw in (0, 20, 39):
        values = {name: draws[name].to_numpy()[1, draw] for name in program.center}
        wanted = beta * (loss(program, values) - at_center)
        found = float(draws["llc"][1, draw])
        assert found == pytest.approx(wanted, rel=1e-3, abs=2e-5 * beta * abs(at_center) + 1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_without_a_learning_coefficient_is_refused(name):
    program, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        nllc.estimate_llc(
            jax.random.key(0),
            program.model,
            program.args,
            center=program.center,
            progress_bar=False,
            **program.settings,
        )
