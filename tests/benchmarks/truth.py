"""What ``truth="center"`` costs against the data, on a perceptron with softmax outputs.

Run ``python tests/benchmarks/truth.py`` (options: ``--help``). Gradients and losses of four chains,
and whole runs of ``sgnht`` with minibatches, take turns with each truth; the medians are compared.
All is compiled before the clocks start.
"""

import argparse
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_llc as nllc
from numpyro_llc.local import all_rows, excess_losses

CHAINS = 4
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


def parts(locals_, data):
    """By name, the compiled parts of a run by truth."""
    gradient = jax.jit(lambda target, z: jax.vmap(jax.grad(target.potential))(z))
    evaluate = jax.jit(lambda target, z: excess_losses(target, z, all_rows(target)).excess)
    found = {"gradient": {}, "evaluation": {}}
    for truth, local in locals_.items():
        target = local.target(local.read(data))[0]
        z = jax.tree.map(lambda leaf: jnp.stack([1.01 * leaf] * CHAINS), target.center)
        found["gradient"][truth] = lambda t=target, z=z: gradient(t, z)
        found["evaluation"][truth] = lambda t=target, z=z: evaluate(t, z)
    return found


def runs(locals_, data, steps):
    """Whole runs with minibatches."""

    def run(local):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nllc.LLCWarning)
            idata = nllc.estimate_llc(
                jax.random.key(0),
                local,
                data,
                kernel="sgnht",
                batch_size=128,
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
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    locals_, data = problem(given.widths, given.num_data)
    measured = {**parts(locals_, data), "sgnht": runs(locals_, data, given.steps)}
    print("                 data [ms]  center [ms]   ratio")
    for name, functions in measured.items():
        one, two, ratio = median_ratio(functions, given.repeats)
        print(f"{name:15s} {one:10.2f} {two:12.2f} {ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
