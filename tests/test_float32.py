"""float32 at n = 10^6, against x64 and against exact values."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from targets import target_of

PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
import numpyro_llc as nllc
from numpyro.infer import NUTS
from numpyro_llc.local import make_target
from numpyro_llc.models import read_model

n, noise = 10**6, float(sys.argv[1])
rng = np.random.default_rng(0)
residual = noise * rng.normal(size=n)
y = 3.0 + residual - residual.mean()

def model(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(w, 1.0), obs=y)

center = {"w": y.mean()}
idata = nllc.estimate_llc(
    jax.random.key(0), model, (y,), center=center, localization=1e4,
    num_warmup=100, num_samples=250, num_chains=2, chain_method="sequential",
    kernel=NUTS(model), progress_bar=False,
)
reading = read_model(model, (y,), None, center=center)
target = make_target(reading.program, reading.arrays, reading.center,
                     inverse_temperature=1.0, localization={"w": 1.0})
offsets = [0.0, 1e-3, 4e-3, -4e-3, 1e-2]
excess = [float(target.excess_loss({"w": reading.center["w"] + d})) for d in offsets]
placed = [float(np.asarray(reading.center["w"] + d, np.float64)) for d in offsets]
row = nllc.summary(idata).loc["llc"]
print(json.dumps({
    "mean": row["mean"], "error": row["mcse_mean"], "dtype": str(reading.center["w"].dtype),
    "excess": excess, "exact": [0.5 * n * (w - y.mean()) ** 2 for w in placed],
    "center_loss": idata.attrs["center_loss"],
}))
"""
EXACT = 0.5 / (1 + 1e4 * np.log(1e6) / 1e6)


def run(noise, x64):
    environment = {**os.environ, "JAX_ENABLE_X64": str(int(x64))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(noise)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return json.loads(done.stdout.splitlines()[-1])


def mean_of_normals(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(w, 1.0), obs=y)


@pytest.mark.parametrize(("noise", "tolerance"), [(1.0, 0.02), (30.0, 4.0)])
def test_losses_are_subtracted_before_they_are_summed(noise, tolerance):
    """The tolerances are those of the test below, which says where they are from."""
    residual = noise * np.random.default_rng(0).normal(size=10**6)
    y = 3.0 + residual - residual.mean()
    target = target_of(mean_of_normals, (y,), {"w": y.mean()})
    center = target.center["w"]
    assert center.dtype == np.float32
    points = [center + offset for offset in (1.3e-3, 4.1e-3, -3.7e-3, 1e-2)]
    exact = [0.5e6 * (float(w) - y.mean()) ** 2 for w in points]
    excess = [float(target.excess_loss({"w": w})) for w in points]
    np.testing.assert_allclose(excess, exact, atol=tolerance, rtol=2e-3)
    assert float(target.excess_loss({"w": center})) == 0.0
    total = jax.jit(lambda w: jnp.sum(target.losses({"w": w})["y"]))
    naive = [float(total(w) - total(center)) for w in points]
    assert np.max(np.abs(np.subtract(naive, exact))) > tolerance + 2e-3 * max(exact)


@pytest.mark.slow
def test_float32_and_x64_agree_at_a_million_data_whatever_the_loss_at_the_center():
    small, large, double = run(1.0, False), run(30.0, False), run(1.0, True)
    assert (small["dtype"], double["dtype"]) == ("float32", "float64")
    assert large["center_loss"] > 200 * small["center_loss"]
    for one in (small, large, double):
        assert abs(one["mean"] - EXACT) < 4 * one["error"]
        assert one["error"] < 0.1
    assert abs(small["mean"] - double["mean"]) < 4 * np.hypot(small["error"], double["error"])
    assert abs(small["mean"] - large["mean"]) < 4 * np.hypot(small["error"], large["error"])
    # nL itself is 1e6 or 5e8; a float32 sum of it would be wrong by 0.1 and by 50.
    np.testing.assert_allclose(small["excess"], small["exact"], atol=0.02, rtol=2e-3)
    # Residuals of 100 have a float32 grid of 8e-6, on which y - w rounds the same way for all data
    # of a binade: up to 4e-6 Σ|r| there, a few nats. That is the model's arithmetic, not the sum's.
    np.testing.assert_allclose(large["excess"], large["exact"], atol=4.0, rtol=2e-3)
    np.testing.assert_allclose(double["excess"], double["exact"], atol=1e-6)
    assert small["excess"][0] == large["excess"][0] == 0.0
