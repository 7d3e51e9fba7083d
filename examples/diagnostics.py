"""A healthy run beside a faulty one: their findings, and the pictures that show them.

The model is that of ``quickstart.py``, ``y = a tanh(b x) + noise`` at a = b = 0. The healthy run is
NUTS. The faulty one is SGLD with a step that is given, and too long.
"""

import argparse
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc

mpl.use("agg")
CENTER = {"a": 0.0, "b": 0.0}


def model(x, y=None):
    a = numpyro.sample("a", dist.Normal(0, 10))
    b = numpyro.sample("b", dist.Normal(0, 10))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(a * jnp.tanh(b * x), 1.0), obs=y)


def run(data, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)  # the findings are printed below
        return nllc.estimate_llc(
            jax.random.key(0), model, data, center=CENTER, store_sites=True, **settings
        )


def save_side_by_side(path, results, plot, size):
    figure, axes = plt.subplots(1, len(results), figsize=size, layout="constrained")
    for own, (label, idata) in zip(axes, results.items(), strict=True):
        plot(idata, axes=own)
        own.set_title(f"{label}: {own.get_title()}" if own.get_title() else label)
    figure.savefig(path, dpi=100)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--step-size", type=float, default=0.02, help="of the faulty run")
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="a folder")
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)

    x = np.linspace(-2, 2, options.num_data)
    data = (x, np.zeros(options.num_data))
    lengths = {"num_samples": options.num_samples, "progress_bar": not options.no_progress_bar}
    too_long = nllc.SGLD(step_size=options.step_size)
    faulty = {"kernel": too_long, "num_warmup": 100, "thinning": 1}
    results = {"healthy": run(data, **lengths), "faulty": run(data, **lengths, **faulty)}
    for label, idata in results.items():
        row = nllc.summary(idata).loc["llc"]
        print(f"{label}: {row['mean']:.3f} ± {row['mcse_mean']:.3f}")
        for check, finding in nllc.diagnose(idata).iterrows():
            print(f"  {check}: {finding['meaning']}")

    def loss(a, b):
        return 0.5 * a**2 * sum(np.tanh(b * value) ** 2 for value in x)

    def landscape(idata, axes):
        return nllc.plots.plot_landscape(idata, loss, center=CENTER, axes=axes)

    traces = nllc.plots.plot_traces(results)
    traces[0, 0].figure.savefig(options.output / "plot_trace.png", dpi=100)
    for name, plot, size in (
        ("rank", nllc.plots.plot_rank, (10, 3.6)),
        ("gamma", nllc.plots.plot_gamma, (10, 5.0)),
        ("error_budget", nllc.plots.plot_error_budget, (11, 3.2)),
        ("landscape", landscape, (10, 4.6)),
    ):
        save_side_by_side(options.output / f"plot_{name}.png", results, plot, size)
    print(f"pictures: {options.output}")
    return results


if __name__ == "__main__":
    main()
