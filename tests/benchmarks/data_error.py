"""The stated error from the data against the spread of λ̂ over simulated data sets.

Run ``python tests/benchmarks/data_error.py`` (options: ``--help``). At the true point, by NUTS; the
Monte Carlo error is taken off the spread.
"""

import argparse
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc


def linear(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([5]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def logistic(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def tanh_unit(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(w[0] * jnp.tanh(w[1] * x[:, 0]), 1.0), obs=y)


def square(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(w**2 * x[:, 0], 1.0), obs=y)


def normal(rng, mean):
    return mean + rng.normal(size=len(mean))


def coin(rng, logit):
    return (rng.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(float)


MODELS = {
    "linear": (linear, np.linspace(-1, 1, 5), lambda x, w: x @ w, normal),
    "logistic": (logistic, np.linspace(-1, 1, 3), lambda x, w: x @ w, coin),
    "tanh unit": (tanh_unit, np.zeros(2), lambda x, w: 0 * x[:, 0], normal),
    "square": (square, np.zeros(()), lambda x, w: 0 * x[:, 0], normal),
}


def replications(name, count, num_data):
    """λ̂, its Monte Carlo error and the stated error from the data, ``[count, 3]``."""
    model, truth, mean, observe = MODELS[name]
    rng, rows = np.random.default_rng(0), []
    for k in range(count):
        x = rng.normal(size=(num_data, max(truth.size, 1)))
        idata = nllc.estimate_llc(
            jax.random.key(k),
            model,
            (x, observe(rng, mean(x, truth))),
            center={"w": truth},
            num_warmup=500,
            progress_bar=False,
        )
        budget = nllc.error_budget(idata)["value"]
        mean_llc = nllc.summary(idata).loc["llc", "mean"]
        rows.append((mean_llc, budget["monte_carlo"], budget["data"]))
    return np.array(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    warnings.simplefilter("ignore", nllc.LLCWarning)
    for name in options.models:
        llc, error, stated = replications(name, options.count, options.num_data).T
        spread = np.sqrt(np.var(llc, ddof=1) - np.mean(error**2))
        print(
            f"{name}: mean {llc.mean():.3f}, spread {spread:.4f}, median stated "
            f"{np.median(stated):.4f}, ratio {np.median(stated) / spread:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
