"""Mean error of λ̂ on w1² w2⁴ (n = 10⁴, γ = 1) by the acceptance that NUTS aims at."""

import warnings

import jax
import numpy as np
from numpyro.infer import NUTS

import numpyro_llc as nllc


def main() -> None:
    warnings.simplefilter("ignore", nllc.LLCWarning)
    problem = nllc.zoo.load("square_times_fourth", 10_000)
    for target in (0.8, 0.9, 0.95, 0.99):
        kernel = NUTS(problem.model, target_accept_prob=target)
        means = []
        for seed in range(4):
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
        error = np.mean(means) / problem.expectation().mean - 1
        print(f"target_accept_prob {target}: mean relative error {100 * error:+.1f} %", flush=True)


if __name__ == "__main__":
    main()
