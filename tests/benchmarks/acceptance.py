"""Mean error of λ̂ on w1² w2⁴ (n = 10⁴, γ = 1) by the acceptance that NUTS aims at."""

import sys
import warnings
from pathlib import Path

import jax
import numpy as np
from numpyro.infer import NUTS

import numpyro_llc as nllc

sys.path.insert(0, str(Path(__file__).parents[1]))
import cases  # noqa: E402


def main() -> None:
    warnings.simplefilter("ignore", nllc.LLCWarning)
    case, setting = cases.CASES["square_times_fourth"], (10_000, 1.0)
    for target in (0.8, 0.9, 0.95, 0.99):
        kernel = NUTS(cases.model, target_accept_prob=target)
        means = []
        for seed in range(4):
            idata = nllc.estimate_llc(
                jax.random.key(seed),
                cases.model,
                cases.arguments(case, setting[0]),
                center={"w": case.center},
                num_data=setting[0],
                kernel=kernel,
                num_samples=2000,
                progress_bar=False,
            )
            means.append(nllc.summary(idata).loc["llc", "mean"])
        error = np.mean(means) / case.values[setting] - 1
        print(f"target_accept_prob {target}: mean relative error {100 * error:+.1f} %", flush=True)


if __name__ == "__main__":
    main()
