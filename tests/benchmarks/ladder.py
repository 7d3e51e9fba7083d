"""Whether the stated error of a ladder's free energy is its spread, over seeds: exact answer known.

Conjugate regression at n = 1000 around its least-squares point, whose integral is a determinant.
Run it: ``python tests/benchmarks/ladder.py``.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

import numpyro_llc as nllc

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_free_energy import RUNGS, regression, regression_data  # noqa: E402


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    options = parser.parse_args(arguments)
    x, y, ols, loss = regression_data(1_000)
    wanted = loss + 0.5 * np.linalg.slogdet(np.eye(2) + x.T @ x)[1]
    scores = []
    for seed in range(options.seeds):
        ladder = nllc.evidence.temperature_ladder(
            jax.random.key(1_000 + seed),
            nllc.localize(regression, center={"w": ols}, num_data=1_000),
            (x, y),
            inverse_temperatures=RUNGS,
            num_warmup=300,
            num_samples=500,
            progress_bar=False,
        )
        found = nllc.evidence.free_energy(ladder)
        scores.append((found.value - wanted) / found.error)
    print(f"(value - exact) / error: mean {np.mean(scores):.2f}, sd {np.std(scores):.2f}")


if __name__ == "__main__":
    main()
