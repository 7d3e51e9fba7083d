"""What ``truth="center"`` costs against the data, on a perceptron with softmax outputs.

Run ``python tests/benchmarks/truth.py`` (options: ``--help``). Of the gradient from a batch, that
of all data, and the evaluation of a draw it prints the operations that XLA counts, and the medians
of their times, which take turns with each truth; of whole runs of ``sgnht`` with minibatches the
medians alone. For one chain and for several. All is compiled before the clocks start.
"""

import argparse
import time
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_llc as nllc
from numpyro_llc.local import all_rows, excess_losses
from numpyro_llc.models import with_batches

BATCH = 128
TRUTHS = ("data", "center")


def apply(params, x):
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer)
    return x @ params[-1]


def problem(widths, num_data):
    rng = np.random.default_rng(0)
    params = [
        (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
        for shape in zip(widths, widths[1:], strict=False)
    ]
    x = rng.normal(size=(num_data, widths[0])).astype(np.float32)
    labels = rng.integers(0, widths[-1], num_data)
    model = nllc.network_model(apply, params, "categorical")
    locals_ = {
        k: nllc.localize(model, center={"params": params}, localization=100.0, truth=k)
        for k in TRUTHS
    }
    return locals_, (x, labels)


def median_ratio(functions, repeats):
    """Median seconds by truth, of functions that take turns, and their ratio."""
    seconds = {truth: [] for truth in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for truth, function in functions.items():
            begin = time.perf_counter()
            jax.block_until_ready(function())
            seconds[truth].append(time.perf_counter() - begin)
    medians = {truth: float(np.median(times)) for truth, times in seconds.items()}
    return *(1e3 * medians[truth] for truth in TRUTHS), medians["center"] / medians["data"]


def parts(locals_, data, chains):
    """By name and truth, the compiled parts of a run, and what they are called with."""

    def from_batch(target, z):
        return jax.vmap(jax.grad(lambda one: target.tempered_loss(one, jnp.arange(BATCH))))(z)

    parts = {
        "gradient, batch": from_batch,
        "gradient, all": lambda target, z: jax.vmap(jax.grad(target.potential))(z),
        "evaluation": lambda target, z: excess_losses(target, z, all_rows(target), with_slope=True)[
            :2
        ],
    }
    found = {name: {} for name in parts}
    for truth, local in locals_.items():
        reading = local.read(data)
        target = local.target(replace(reading, program=with_batches(reading)))[0]
        z = jax.tree.map(lambda leaf: jnp.stack([1.01 * leaf] * chains), target.center)
        for name, function in parts.items():
            found[name][truth] = jax.jit(function).lower(target, z).compile(), (target, z)
    return found


def operations_ratio(compiled):
    """Operations of one truth over those of the other; XLA counts those of a loop's turn once."""
    counts = {truth: one.cost_analysis()["flops"] for truth, (one, _) in compiled.items()}
    return counts["center"] / counts["data"]


def runs(locals_, data, steps, chains):
    """Whole runs with minibatches."""

    def run(local):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            idata = nllc.estimate_llc(
                jax.random.key(0),
                local,
                data,
                kernel="sgnht",
                batch_size=BATCH,
                num_chains=chains,
                num_warmup=steps // 2,
                num_samples=steps,
                thinning=10,
                progress_bar=False,
            )
        return idata["posterior"]["llc"].to_numpy()

    return {truth: lambda local=local: run(local) for truth, local in locals_.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 64, 10])
    parser.add_argument("--num-data", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--chains", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    locals_, data = problem(given.widths, given.num_data)
    print("chains                    data [ms]  center [ms]   ratio  of operations")
    for chains in given.chains:
        for name, compiled in parts(locals_, data, chains).items():
            functions = {
                k: lambda one=one, own=own: one(*own) for k, (one, own) in compiled.items()
            }
            _say(chains, name, functions, given.repeats, f"{operations_ratio(compiled):10.2f}")
        _say(chains, "sgnht", runs(locals_, data, given.steps, chains), given.repeats)


def _say(chains, name, functions, repeats, operations=""):
    one, two, ratio = median_ratio(functions, repeats)
    print(f"{chains:6d}  {name:15s} {one:11.2f} {two:12.2f} {ratio:7.2f} {operations}", flush=True)


if __name__ == "__main__":
    main()
