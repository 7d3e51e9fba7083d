"""A γ x β x ε sweep against its cells run bare, on a network of 1000 parameters.

Run ``python tests/benchmarks/sweep.py`` (options: ``--help``). "Bare" is the compiled loop alone,
cell by cell, for the same steps and draws: no reading, summaries or checks. Everything is compiled
before the clock starts.
"""

import argparse
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc
from numpyro_llc import sampling
from numpyro_llc.sampling import Run, check_schedule, make_plan

GRID = {
    "step_size": [1e-5, 3e-5, 1e-4],
    "localization": [0.3, 1.0, 3.0, 10.0, 30.0],
    "inverse_temperature": [0.05, 0.1, 0.15, 0.2, 0.3],
}


def model(x, y):
    """Tanh network of 20 inputs, 30 units and 13 outputs: 990 parameters."""
    first = numpyro.sample("first", dist.Normal(0, 1).expand([20, 30]).to_event(2))
    second = numpyro.sample("second", dist.Normal(0, 1).expand([30, 13]).to_event(2))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ first) @ second, 1.0).to_event(1), obs=y)


def data():
    rng = np.random.default_rng(0)
    center = {"first": rng.normal(size=(20, 30)) / 5, "second": rng.normal(size=(30, 13)) / 5}
    x = rng.normal(size=(1000, 20))
    y = np.tanh(x @ center["first"]) @ center["second"] + rng.normal(size=(1000, 13))
    return (x.astype(np.float32), y.astype(np.float32)), center


def bare(cell, steps):
    """The loop of one cell: warm-up, then draws after every 10th step."""
    args, center = data()
    settings = dict(cell)
    kernel = nllc.SGLD(step_size=settings.pop("step_size"), batch_size=64)
    schedule = check_schedule(steps // 4, steps, 4, 10, "vectorized", False)
    plan = make_plan(nllc.localize(model, center=center, **settings), args, None, kernel, schedule)
    starts = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), plan.target.center)
    run = Run(plan, starts, jax.random.key(0))
    began = time.perf_counter()
    run.walk(steps // 4)
    run.end_warmup()
    run.draw(steps // 10, 10)
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--method", default="vectorized", choices=["vectorized", "sequential"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore", nllc.LLCWarning)
    args, center = data()

    def swept(steps):
        began = time.perf_counter()
        nllc.sweep(
            jax.random.key(0),
            nllc.localize(model, center=center),
            args,
            kernel="sgld",
            batch_size=64,
            num_warmup=steps // 4,
            num_samples=steps,
            thinning=10,
            chain_method=options.method,
            **GRID,
        )
        return time.perf_counter() - began

    sampling.advance.clear_cache()
    first = swept(40)
    print(f"first call, of 40 steps: {first:.1f} s, {sampling.advance._cache_size()} compilation")
    names = list(GRID)
    cells = [
        dict(zip(names, values, strict=True))
        for values in np.stack(np.meshgrid(*GRID.values(), indexing="ij"), -1).reshape(-1, 3)
    ]
    for step in GRID["step_size"]:  # of the bare loop, each step size is compiled
        bare({**cells[0], "step_size": step}, 40)
    ratios = []
    for _ in range(options.repeats):
        alone = sum(bare(cell, options.steps) for cell in cells)
        whole = swept(options.steps)
        ratios.append(whole / alone)
        print(f"sweep {whole:.1f} s, its {len(cells)} cells bare {alone:.1f} s: {ratios[-1]:.2f}")
    print(f"median ratio {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
