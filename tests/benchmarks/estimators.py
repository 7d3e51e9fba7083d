"""Which estimator is nearest to λ: the mean, or one corrected for γ and the multiplicity.

Run ``python tests/benchmarks/estimators.py`` (options: ``--help``); eight minutes on two cores.
Draws of ``kernel="sgnht"`` at its defaults; ``exact`` is what the mean should be at this n and γ.
"""

import argparse
import warnings

import jax
import pandas as pd

import numpyro_llc as nllc

MULTIPLE = (
    "product_of_two",
    "product_of_three",
    "tanh_unit",
    "relu_unit",
    "node",
    "bernoulli_product",
    "linear_network_2_2_3",
    "linear_network_3_1_3",
    "linear_network_2_2_2_rank_1",
    "matrix_factorization",
)
SINGLE = (
    "fourth_power",
    "sixth_power",
    "gaussian",
    "normal_mixture",
    "square_plus_fourth",
    "fourth_plus_sixth",
    "square_times_fourth",
    "linear_network_2_2_2",
    "linear_network_5_2_2",
    "logistic_regression",
)


def row(name, num_data, localization, key):
    problem = nllc.zoo.load(name, num_data)
    known, exact = problem.learning_coefficient, problem.expectation(localization)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        idata = nllc.estimate_llc(
            key,
            problem.model,
            problem.model_args,
            center=problem.center,
            num_data=num_data,
            localization=localization,
            kernel="sgnht",
            progress_bar=False,
        )
        table = nllc.summary(idata, estimators="all", multiplicity=known.multiplicity)
    found = table["mean"]
    return {
        "λ": float(known.value),
        "m": known.multiplicity,
        "exact": None if exact is None else exact.mean,
        **found,
        "error": table.loc["corrected", "mcse_mean"],
        "nearer": abs(found["corrected"] - known.value) < abs(found["mean"] - known.value),
    }


GROUPS = {
    "m > 1, γ = 1": (MULTIPLE, 1.0),
    "m > 1, γ = 10": (MULTIPLE, 10.0),
    "m = 1, γ = 10": (SINGLE, 10.0),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=10_000)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    options = parser.parse_args()
    for title in options.groups:
        names, gamma = GROUPS[title]
        rows = {
            name: row(name, options.num_data, gamma, jax.random.key(k))
            for k, name in enumerate(names)
        }
        table = pd.DataFrame.from_dict(rows, orient="index")
        print(
            f"\n{title}, n = {options.num_data}: corrected nearer to λ in {table['nearer'].sum()}"
        )
        print(table.to_string(float_format=lambda number: f"{number:.3f}"), flush=True)


if __name__ == "__main__":
    main()
