import jax
import numpy as np
import pytest
import regression

import numpyro_llc as nllc


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
