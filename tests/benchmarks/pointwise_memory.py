"""Peak memory of the statistics of each datum as n grows, draws as they are.

A line for each n, in a process of its own: ``python tests/benchmarks/pointwise_memory.py``. What
grows is the data and what is returned of each datum, tens of bytes a datum; draws times data in
float32 is printed beside it.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_llc import pointwise
from numpyro_llc.inference_data import inference_data, labelled

CHAINS, DRAWS = 4, 500


def model(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def measure(num_data, max_memory):
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, num_data)).astype(np.float32)
    y = x + noise
    w = (x @ y) / (x @ x) + rng.normal(size=(CHAINS, DRAWS)) / np.sqrt(x @ x)
    draws = labelled({"w": w}, lead=("chain", "draw"))
    losses = pointwise.pointwise_losses(
        inference_data({"posterior": draws}, {}), model, (x, y), max_memory=max_memory
    )
    began = time.perf_counter()
    found = pointwise.singular_fluctuation(pointwise.pointwise_statistics(losses))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stored = num_data * CHAINS * DRAWS * 4 / 2**20
    print(
        f"n = {num_data}: peak {peak:.0f} MiB, draws times data {stored:.0f} MiB, "
        f"{seconds:.0f} s, ν = {found.value:.3f} ± {found.error:.3f}",
        flush=True,
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--max-memory", type=float, default=2**27)
    options = parser.parse_args(arguments)
    if len(options.num_data) == 1:
        measure(options.num_data[0], options.max_memory)
        return
    for num_data in options.num_data:
        command = [sys.executable, __file__, f"--num-data={num_data}"]
        subprocess.run([*command, f"--max-memory={options.max_memory}"], check=True)


if __name__ == "__main__":
    main()
