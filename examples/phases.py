"""Two phases of one model: a singular minimum, and one that fits better but is less singular.

The loss a datum is ``(w + 1)⁴ (w - 1)²``, lifted by 0.01 at w = -1. There λ = 1/4; at w = 1 it is
0 and λ = 1/2. With few data the posterior prefers the first, with many the second.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc

mpl.use("agg")
ROWS, DEPTH = 8, 0.01
CENTERS = {"singular, λ = 1/4": -1.0, "deeper, λ = 1/2": 1.0}


def landscape(w):
    u = jnp.clip(0.5 * (1.0 - w), 0.0, 1.0)  # a step down: no rounding makes it negative
    step = u**4 * (35.0 - 84.0 * u + 70.0 * u**2 - 20.0 * u**3)
    return (w + 1.0) ** 4 * (w - 1.0) ** 2 + DEPTH * step


def model(y, scale):
    """Rows without noise, each of which stands for `scale` data."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", y.shape[0]), numpyro.handlers.scale(scale=scale):
        numpyro.sample("y", dist.Normal(jnp.sqrt(2.0 * landscape(w) + 1e-12), 1.0), obs=y)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--num-warmup", type=int, default=500)
    parser.add_argument("--picture", type=Path, default=Path("docs/plot_phases.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)
    ladders = {
        name: nllc.evidence.temperature_ladder(
            jax.random.key(0),
            nllc.localize(
                model, center={"w": center}, num_data=options.num_data, localization=10.0
            ),
            (np.zeros(ROWS), options.num_data / ROWS),
            prior="both",
            inverse_temperatures=np.geomspace(10 / options.num_data, 1.0, 9),
            num_warmup=options.num_warmup,
            num_samples=options.num_samples,
            progress_bar=not options.no_progress_bar,
        )
        for name, center in CENTERS.items()
    }
    found = nllc.evidence.phases(ladders, prior="model")
    nllc.plots.plot_phases(found).figure.savefig(options.picture, dpi=120)
    for one in found.crossings:
        print(f"{one.below} below, {one.above} above n* = {one.num_data:.4g} ± {one.error:.2g}")
    return found


if __name__ == "__main__":
    main()
