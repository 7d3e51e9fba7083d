"""Four samplers on one toy landscape: where each goes, its λ̂, and the exact one.

The model is ``y = w1 w2 x + noise`` at w1 = w2 = 0. The noise is made orthogonal to x, so that the
loss is exactly ½ (w1 w2)² and a constant, the zoo's ``product_of_two``, and E[llc] is known in
closed form at this n and γ; but a minibatch feels the noise. NUTS uses all the data at each step,
SGLD and SGNHT minibatches, and all three follow the arms of the cross. SGD is plain gradient
descent on the same local potential, without injected noise. The noise of its batches alone could
spread it, and at this centre the gradient of every batch is zero: it falls into the centre and
stays, and its λ̂ of 0 is no estimate of λ.

Run it with ``python examples/samplers.py``: about two minutes on two cores.
"""

import argparse
import warnings
from pathlib import Path

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import xarray as xr

import numpyro_llc as nllc

mpl.use("agg")
CENTER = {"w1": 0.0, "w2": 0.0}


def model(x, y=None):
    w1 = numpyro.sample("w1", dist.Normal(0, 10))
    w2 = numpyro.sample("w2", dist.Normal(0, 10))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(w1 * w2 * x, 1.0), obs=y)


def make_data(num_data):
    """Inputs of mean square 1, and noise without a component along them."""
    x, noise = np.random.default_rng(0).normal(size=(2, num_data))
    x /= np.sqrt(np.mean(x**2))
    return x, noise - x * np.mean(x * noise)


def draw(picture, results, table, exact):
    line = np.linspace(-4, 4, 401)
    loss = xr.DataArray(
        0.5 * np.square(line[:, None] * line), {"w1": line, "w2": line}, dims=("w1", "w2")
    )
    levels = [0.003, 0.03, 0.3, 3.0]
    figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    for own, (kernel, idata) in zip(axes.flat, results.items(), strict=False):
        nllc.plots.plot_landscape(idata, loss, center=CENTER, levels=levels, axes=own)
        row = table.loc[kernel]
        own.set_title(f"{kernel}: λ̂ = {row['λ̂']:.3f} ± {row['mcse_mean']:.3f} (exact: {exact:.3f})")
    figure.savefig(picture, dpi=80)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", nargs="+", default=["nuts", "sgd", "sgld", "sgnht"])
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=50, help="of all but NUTS")
    parser.add_argument("--num-warmup", type=int, default=2000)
    parser.add_argument("--num-draws", type=int, default=2000, help="kept of each of four chains")
    parser.add_argument("--thinning", type=int, default=50, help="of all but NUTS")
    parser.add_argument("--localization", type=float, default=1.0)
    parser.add_argument("--picture", type=Path, default=Path("samplers.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    data = make_data(options.num_data)
    results, rows = {}, {}
    for kernel in options.kernels:
        thinning = 1 if kernel == "nuts" else options.thinning
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nllc.LLCWarning)  # the findings are in the table
            idata = nllc.estimate_llc(
                jax.random.key(0),
                model,
                data,
                center=CENTER,
                kernel=kernel,
                batch_size=None if kernel == "nuts" else options.batch_size,
                localization=options.localization,
                num_warmup=options.num_warmup,
                num_samples=options.num_draws * thinning,
                thinning=thinning,
                store_sites=True,
                progress_bar=not options.no_progress_bar,
            )
        row = nllc.summary(idata).loc["llc"]
        rows[kernel] = {
            "λ̂": row["mean"],
            "mcse_mean": row["mcse_mean"],
            "r_hat": row["r_hat"],
            "findings": ", ".join(nllc.diagnose(idata).index),
        }
        results[kernel] = idata
    problem = nllc.zoo.load("product_of_two", num_data=options.num_data)
    exact = problem.expectation(localization=options.localization).mean
    table = pd.DataFrame(rows).T.astype({"λ̂": float, "mcse_mean": float, "r_hat": float})
    table["exact"] = exact
    table["z"] = (table["λ̂"] - exact) / table["mcse_mean"]
    print(table.round(3).to_string())
    print(f"λ = {problem.learning_coefficient.value}, its limit as n grows")
    draw(options.picture, results, table, exact)
    print(f"picture: {options.picture}")
    return table


if __name__ == "__main__":
    main()
