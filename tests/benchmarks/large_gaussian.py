"""λ̂ of 70 000 parameters against its exact value: noise of 8 bits, and rare calibrations.

Run ``python tests/benchmarks/large_gaussian.py`` (options: ``--help``); some minutes. The loss is
quadratic with curvatures over two decades, so that λ̂ is known at every n, β and γ. Prints λ̂, its
Monte Carlo error, R-hat and the ratio to the exact value, by kernel.
"""

import argparse

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc

NUM_DATA = 50


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dimension", type=int, default=70_000)
    parser.add_argument("--kernels", nargs="+", default=["sgld", "sgnht"])
    options = parser.parse_args()
    scale = np.geomspace(0.2, 2.0, options.dimension, dtype=np.float32)

    def model(y):
        w = numpyro.sample("w", dist.Normal().expand([options.dimension]).to_event(1))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(w * scale, 1.0).to_event(1), obs=y)

    y = np.random.default_rng(0).normal(size=(NUM_DATA, options.dimension)).astype(np.float32)
    curvature = NUM_DATA / np.log(NUM_DATA) * scale.astype(float) ** 2
    exact = 0.5 * np.sum(curvature / (curvature + 1.0))
    for kernel in options.kernels:
        idata = nllc.estimate_llc(
            jax.random.key(1),
            model,
            (y,),
            center={"w": y.mean(axis=0) / scale},
            kernel=kernel,
            batch_size=10,
            num_chains=2,
            num_warmup=400,
            num_samples=1200,
            store_sites=(),
            progress_bar=False,
        )
        row = nllc.summary(idata).loc["llc"]
        print(
            f"{kernel}: {row['mean']:.1f} ± {row['mcse_mean']:.1f} (R-hat {row['r_hat']:.3f}), "
            f"{row['mean'] / exact:.4f} of the exact {exact:.1f}"
        )


if __name__ == "__main__":
    main()
