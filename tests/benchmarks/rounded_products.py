"""What λ̂ is where products of matrices round their factors to 10 bits, as TF32 does on GPUs.

Run ``python tests/benchmarks/rounded_products.py`` (options: ``--help``); NUTS takes five minutes
on two cores. The rounding is emulated, so that it runs on a CPU. Of a regression with 20
coefficients and λ̂ of nearly 10, whose inputs have the mean 3.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc

KERNELS = {
    "sgnht": {"kernel": "sgnht", "batch_size": 256},
    "nuts": {"num_warmup": 500, "num_samples": 250},
}


def plain(x: jax.Array) -> jax.Array:
    return x


def rounded(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)


def regression(factor: Callable[[jax.Array], jax.Array]) -> Callable:
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 10).expand([5, 4]).to_event(2))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(factor(x) @ factor(w), 1.0).to_event(1), obs=y)

    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=["sgnht", "nuts"])
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    for kernel in options.kernels:
        # NUTS stands still at the least number already, in trees of the greatest depth.
        for n in options.rows if kernel == "sgnht" else options.rows[:1]:
            rng = np.random.default_rng(0)
            x = rng.normal(3.0, 1.0, size=(n, 5))
            y = x @ rng.normal(size=(5, 4)) + rng.normal(size=(n, 4))
            center = {"w": np.linalg.lstsq(x, y, rcond=None)[0]}
            for factor in (plain, rounded):
                began = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", nllc.LLCWarning)
                    idata = nllc.estimate_llc(
                        jax.random.key(1),
                        regression(factor),
                        (x, y),
                        center=center,
                        progress_bar=False,
                        **KERNELS[kernel],
                    )
                row = nllc.summary(idata).loc["llc"]
                print(
                    f"{kernel:5s} n = {n:9,d} {factor.__name__:7s} {row['mean']:7.3f} ± "
                    f"{row['mcse_mean']:.3f}, R-hat {row['r_hat']:.3f}, "
                    f"{time.perf_counter() - began:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
