"""λ̂ over a grid of localization γ and inverse temperature β, and the plateau that it has.

The model is ``y = a b x + noise`` at a = b = 1. Every (a, b) with a b = 1 fits as well: one
direction is flat, and λ = 1/2 where d/2 = 1.
"""

import argparse
import warnings
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc

mpl.use("agg")


def model(x, y=None):
    a = numpyro.sample("a", dist.Normal(0, 10))
    b = numpyro.sample("b", dist.Normal(0, 10))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(a * b * x, 1.0), obs=y)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", default="sgnht")
    parser.add_argument("--num-samples", type=int, default=16000)
    parser.add_argument("--num-warmup", type=int, default=1000)
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--localization", type=float, nargs="+", default=[1, 3, 10, 30, 100, 300])
    parser.add_argument(
        "--inverse-temperature", type=float, nargs="+", default=[0.01, 0.03, 0.1, 0.3, 1]
    )
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="a folder")
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)

    x = np.linspace(-2, 2, options.num_data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)  # each cell holds its findings
        grid = nllc.sweep(
            jax.random.key(0),
            nllc.localize(model, center={"a": 1.0, "b": 1.0}),
            (x, x),
            kernel=options.kernel,
            localization=options.localization,
            inverse_temperature=options.inverse_temperature,
            num_warmup=options.num_warmup,
            num_samples=options.num_samples,
            thinning=8,
            batch_size=100,
            progress_bar=not options.no_progress_bar,
        )
    print(grid.attrs["recommendation"])

    middle = len(options.inverse_temperature) // 2
    for name, part in (("sweep", grid), ("sweep_line", grid.isel(inverse_temperature=middle))):
        axes = nllc.plots.plot_sweep(part, x="localization")
        axes[0].figure.savefig(options.output / f"plot_{name}.png", dpi=100)
    print(f"pictures: {options.output}")
    return grid


if __name__ == "__main__":
    main()
