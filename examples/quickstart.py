"""λ̂ of a small network's output layer and feature at a singular point, step by step.

The model is ``y = a tanh(b x) + noise`` and the data were made with a = b = 0: there every (a, 0)
and every (0, b) fits as well. d/2 = 1, but the learning coefficient is 1/2.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
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
        numpyro.sample("y", dist.Normal(a * jnp.tanh(b * x), 1.0), obs=y)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("quickstart.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    x = np.linspace(-2, 2, options.num_data)
    y = np.zeros(options.num_data)  # what the true function, zero, says: no noise, no chance
    center = {"a": 0.0, "b": 0.0}

    idata = nllc.estimate_llc(
        jax.random.key(0),
        model,
        (x, y),
        center=center,
        num_samples=options.num_samples,
        progress_bar=not options.no_progress_bar,
    )
    print(nllc.summary(idata).round(3).to_string())

    axes = nllc.plots.plot_traces({"a tanh(b x) at a = b = 0": idata})
    axes[0, 0].figure.savefig(options.output, dpi=120)
    print(f"picture: {options.output}")
    return idata


if __name__ == "__main__":
    main()
