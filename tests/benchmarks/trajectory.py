"""λ̂ at 100 checkpoints of a network of 10⁴ parameters against their sampling runs bare.

Run ``python tests/benchmarks/trajectory.py`` (options: ``--help``). "Bare" is the compiled loop
alone, for the same steps and draws: no reading, summaries or checks. It runs at each checkpoint
just before the trajectory does, so that both see the machine equally busy. The network is trained,
and all is compiled, before the clocks start.
"""

import argparse
import resource
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

import numpyro_llc as nllc
from numpyro_llc import sampling
from numpyro_llc.local import ROWS_ALWAYS_AFFORDABLE, rows_to_evaluate

WIDTHS = (20, 100, 75, 4)
KERNEL = nllc.SGLD(batch_size=128)


def apply(params, x):
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def trained(count):
    """Parameters, data, and the parameters after every tenth step of Adam."""
    rng = np.random.default_rng(0)
    params = [
        {"w": rng.normal(size=(a, b)) / np.sqrt(a), "b": np.zeros(b)}
        for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)
    ]
    x = rng.normal(size=(4000, WIDTHS[0])).astype(np.float32)
    y = np.tanh(x[:, :4] * x[:, 4:8]) + 0.3 * rng.normal(size=(4000, 4)).astype(np.float32)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    optimizer = optax.adam(1e-3)

    @jax.jit
    def ten_steps(params, state):
        def one(_, carried):
            params, state = carried
            gradient = jax.grad(lambda p: jnp.mean((apply(p, x) - y) ** 2))(params)
            updates, state = optimizer.update(gradient, state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 10, one, (params, state))

    checkpoints, now = [], (params, optimizer.init(params))
    for _ in range(count):
        now = ten_steps(*now)
        checkpoints.append({"params": now[0]})
    return params, (x, y), checkpoints


def after_bare(model, data, checkpoints, steps, clock):
    """The checkpoints, each after its loop alone has run; `clock` gets the seconds of both parts.

    The seconds since the last checkpoint was handed out are those of the trajectory.
    """
    schedule = sampling.check_schedule(steps // 4, steps, 4, 10, "vectorized", False)
    first = nllc.localize(model, center=checkpoints[0])
    plan = sampling.make_plan(first, data, None, KERNEL, schedule)
    for center in checkpoints:
        here = plan.varied(center=center)
        starts = here.starts(None, jax.random.key(0))
        began = time.perf_counter()
        rows = rows_to_evaluate(here.target, ROWS_ALWAYS_AFFORDABLE, jax.random.key(0))
        run = sampling.Run(here, starts, jax.random.key(0), rows=rows)
        run.walk(steps // 4)
        run.end_warmup()
        run.draw(steps // 10, 10)
        bare, began = time.perf_counter() - began, time.perf_counter()
        yield center
        clock.append((bare, time.perf_counter() - began))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    warnings.simplefilter("ignore", nllc.LLCWarning)
    params, data, checkpoints = trained(options.count)
    model = nllc.network_model(apply, params, scale=0.3)
    lengths = {"num_warmup": options.steps // 4, "num_samples": options.steps, "thinning": 10}

    def run(checkpoints):
        clock = []
        pairs = after_bare(model, data, checkpoints, options.steps, clock)
        nllc.llc_trajectory(
            jax.random.key(0),
            model,
            pairs,
            data,
            kernel=KERNEL,
            **lengths,
            progress_bar=False,
        )
        return np.array(clock)

    def memory():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    run(checkpoints[:1])
    before = memory()
    clock = run(checkpoints)
    plain, full = clock.sum(axis=0)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(
        f"{options.count} checkpoints of {size} parameters, {options.steps} steps of 4 chains: "
        f"llc_trajectory {full:.1f} s, its loops bare {plain:.1f} s, ratio {full / plain:.3f} (of "
        f"one checkpoint, median {np.median(clock[:, 1] / clock[:, 0]):.3f}); "
        f"{sampling.advance._cache_size()} compilation(s); peak memory {before:.0f} MiB after the "
        f"first checkpoint, {memory():.0f} MiB at the end"
    )


if __name__ == "__main__":
    main()
