"""Time of a run whose data are a memory map, over that of the same run from memory.

    python tests/benchmarks/rows_from_disk.py --rows 1000000 --repeats 5

For each model and kernel it prints the medians of wall time and of the process's own time (all
threads) over calls that take turns, compiled before, and their ratios. A call warms up and samples
with a batch of 256, its passes over all rows at the centre included.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc

HIDDEN = 32


def regression(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def network(x, y):
    shape = (x.shape[1], HIDDEN)
    first = numpyro.sample("first", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
    second = numpyro.sample("second", dist.Normal(0.0, 1.0).expand([HIDDEN]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ first) @ second, 1.0), obs=y)


def stored(folder, name, array):
    """A memory map of the array's numbers."""
    np.save(Path(folder) / name, array)
    return np.load(Path(folder) / f"{name}.npy", mmap_mode="r")


def cases(rows):
    """By name: model, inputs, centre."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 10)).astype(np.float32)
    yield "regression", regression, x, {"w": np.ones(10)}
    first, second = rng.normal(size=(10, HIDDEN)) / 3, rng.normal(size=HIDDEN) / 5
    yield "network", network, x, {"first": first, "second": second}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--kernels", nargs="+", default=["sgld", "sgnht"])
    options = parser.parse_args()
    for name, model, x, center in cases(options.rows):
        outputs = x @ center["w"] if name == "regression" else np.tanh(x @ center["first"])
        outputs = outputs if name == "regression" else outputs @ center["second"]
        noise = np.random.default_rng(1).normal(size=options.rows)
        y = (outputs + noise).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            data = {"memory": (x, y), "disk": (stored(folder, "x", x), stored(folder, "y", y))}
            for kernel in options.kernels:
                compare(name, model, center, kernel, data, options)


def compare(name, model, center, kernel, data, options):
    """Calls that take turns; prints medians of their times."""
    seconds = {place: [] for place in data}
    for turn in range(options.repeats + 1):
        for place, args in data.items():
            wall, own = time.perf_counter(), time.process_time()
            nllc.estimate_llc(
                jax.random.key(turn),
                model,
                args,
                center=center,
                kernel=kernel,
                batch_size=256,
                num_warmup=options.steps // 2,
                num_samples=options.steps // 2,
                progress_bar=False,
            )
            took = time.perf_counter() - wall, time.process_time() - own
            if turn:  # the first one compiles
                seconds[place].append(took)
    memory, disk = (np.median(seconds[place], axis=0) for place in ("memory", "disk"))
    print(
        f"{name:10s} {kernel:6s} wall {memory[0]:.2f} s from memory, {disk[0]:.2f} s from disk "
        f"({disk[0] / memory[0]:.2f}); of all threads {memory[1]:.2f} s, {disk[1]:.2f} s "
        f"({disk[1] / memory[1]:.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
