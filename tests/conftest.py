import gc

import jax
import numpy as np
import pytest
import regression

import numpyro_llc as nllc


@pytest.fixture(scope="module", autouse=True)
def _compiled_code_is_let_go():
    """Each compiled program maps memory; Linux kills a process at some 65 000 mappings."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def fitted():
    """λ̂ of the noisy linear regression at its least-squares point, γ = 1, with all its sites."""
    return nllc.estimate_llc(
        jax.random.key(1),
        regression.model,
        (regression.X, regression.Y),
        center={"w": regression.OLS},
        num_warmup=500,
        progress_bar=False,
    )


@pytest.fixture
def llc_of():
    """λ̂ and its Monte Carlo error, as floats."""

    def read(idata):
        row = nllc.summary(idata).loc["llc"]
        assert np.isfinite(row).all()
        return row["mean"], row["mcse_mean"]

    return read
