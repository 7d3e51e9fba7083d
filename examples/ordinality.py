"""λ̂ puts deep linear networks in the order of their true λ, which the parameter count cannot.

Networks of four layers of width 6, all with the same 144 parameters, at aligned true points of
rank 0 to 6, two random ones of each rank: λ is known (Aoyagi 2024). The picture has λ̂ with its
Monte Carlo error against λ, and the diagonal; d/2 = 72 would put them all in one place.
The script prints Spearman's rank correlation of λ̂ and λ, which stays below 1 where some λ are
equal, and how many of the pairs of different λ are in order.

Run it with ``python examples/ordinality.py``: a few minutes on two cores.
"""

import argparse
import warnings
from pathlib import Path

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import numpyro_llc as nllc

mpl.use("agg")


def estimate(rng_key, problem, localization, **settings):
    """λ̂ of one network beside what is known of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)  # the findings are in the table
        idata = nllc.estimate_llc(
            rng_key,
            problem.model,
            problem.model_args,
            center=problem.center,
            num_data=problem.num_data,
            kernel="sgnht",
            localization=localization,
            **settings,
        )
    row = nllc.summary(idata).loc["llc"]
    return {
        "network": problem.description,
        "λ": float(problem.learning_coefficient.value),
        "m": problem.learning_coefficient.multiplicity,
        "λ̂": row["mean"],
        "mcse_mean": row["mcse_mean"],
        "r_hat": row["r_hat"],
        "d/2": problem.num_parameters / 2,
        "findings": ", ".join(nllc.diagnose(idata).index),
    }


def pairs_in_order(table):
    """How many pairs of different λ have their λ̂ in that order, and how many pairs there are."""
    true, found = (np.subtract.outer(*2 * [table[name].to_numpy()]) for name in ("λ", "λ̂"))
    return int(np.sum((true > 0) & (found > 0))), int(np.sum(true > 0))


def draw(picture, table):
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    axes.errorbar(
        table["λ"], table["λ̂"], yerr=2 * table["mcse_mean"], fmt="o", label="λ̂ ± 2 errors"
    )
    ends = [table["λ"].min(), table["λ"].max()]
    axes.plot(ends, ends, color="0.4", linestyle=":", label="λ̂ = λ")
    half = ", ".join(f"{value:g}" for value in sorted(set(table["d/2"])))
    axes.set(xlabel="true λ", ylabel="λ̂", title=f"Deep linear networks, d/2 = {half} for all")
    axes.legend()
    figure.savefig(picture, dpi=100)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[6, 6, 6, 6, 6])
    parser.add_argument("--ranks", type=int, nargs="+", default=list(range(7)))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--num-data", type=int, default=100_000)
    parser.add_argument("--localization", type=float, default=1.0)
    parser.add_argument("--num-warmup", type=int, default=5000)
    parser.add_argument("--relative-error", type=float, default=0.01)
    parser.add_argument("--picture", type=Path, default=Path("ordinality.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    rows = []
    for rank in options.ranks:
        for seed in range(options.seeds):
            problem = nllc.zoo.deep_linear_network(
                options.widths, rank, num_data=options.num_data, seed=seed
            )
            rows.append(
                estimate(
                    jax.random.key(len(rows)),
                    problem,
                    options.localization,
                    until={"relative_error": options.relative_error, "steps": 60_000},
                    num_warmup=options.num_warmup,
                    progress_bar=not options.no_progress_bar,
                )
            )
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    correlation = float(spearmanr(table["λ"], table["λ̂"]).statistic)
    print(f"Spearman's correlation of λ̂ and λ over {len(table)} networks: {correlation:.3f}")
    in_order, pairs = pairs_in_order(table)
    print(f"Of {pairs} pairs of different λ, {in_order} are in order.")
    draw(options.picture, table)
    print(f"picture: {options.picture}")
    return table, correlation


if __name__ == "__main__":
    main()
