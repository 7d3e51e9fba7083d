"""λ̂ of a small network on scikit-learn's digits at nine values of γ, and the γ that is chosen.

Run ``python tests/benchmarks/localization.py`` (options: ``--help``): trains a tanh network with 32
hidden units, prints what ``choose_localization`` returns, and with ``--picture`` draws it.
"""

import argparse
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
from digits import digits, initial, trained

import numpyro_llc as nllc


def apply(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training-steps", type=int, default=3000)
    parser.add_argument("--num-warmup", type=int, default=1000)
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--picture", type=Path, help="a file to draw λ̂ against γ to")
    options = parser.parse_args()
    x, y = digits()
    params = trained(apply, initial(32), x, y, options.training_steps, batch_size=64)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        choice = nllc.choose_localization(
            jax.random.key(0),
            nllc.network_model(apply, params, "categorical"),
            (x, y),
            center={"params": params},
            kernel="sgnht",
            batch_size=128,
            num_warmup=options.num_warmup,
            num_samples=options.num_samples,
            progress_bar=False,
        )
    limits = choice.data["large_localization_limit"].isel(center=0).to_numpy()
    table = choice.table.assign(large_localization_limit=limits)
    print(table.drop(columns="status").round(3).to_string())
    print(choice.reason)
    print(f"{time.perf_counter() - began:.0f} s with compilation")
    if options.picture is not None:
        nllc.plots.plot_localization(choice).figure.savefig(options.picture, dpi=90)


if __name__ == "__main__":
    main()
