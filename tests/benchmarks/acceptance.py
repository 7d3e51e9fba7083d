"""Mean error of λ̂ on w1² w2⁴ (n = 10⁴, γ = 1) by the acceptance that NUTS aims at.

Run ``python tests/benchmarks/acceptance.py`` (options: ``--help``). ± is the standard error over
the seeds.
"""

import argparse
import warnings

import jax
import numpy as np
from numpyro.infer import NUTS

import numpyro_llc as nllc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore", nllc.LLCWarning)
    problem = nllc.zoo.load("square_times_fourth", 10_000)
    for target in (0.8, 0.9, 0.95, 0.99):
        kernel = NUTS(problem.model, target_accept_prob=target)
        means = []
        for seed in range(seeds):
            idata = nllc.estimate_llc(
                jax.random.key(seed),
                problem.model,
                problem.model_args,
                center=problem.center,
                num_data=problem.num_data,
                kernel=kernel,
                num_samples=2000,
                progress_bar=False,
            )
            means.append(nllc.summary(idata).loc["llc", "mean"])
        errors = 100 * (np.array(means) / problem.expectation().mean - 1)
        spread = errors.std(ddof=1) / seeds**0.5
        print(f"target_accept_prob {target}: {errors.mean():+.1f} ± {spread:.1f} %", flush=True)


if __name__ == "__main__":
    main()
