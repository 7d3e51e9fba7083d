"""λ̂ at 100 checkpoints of a network of 10⁴ parameters against their sampling runs bare.

Run ``python tests/benchmarks/trajectory.py`` (options: ``--help``). "Bare" is the compiled loop
alone, checkpoint by checkpoint, for the same steps and draws: no reading, summaries or checks.
Everything is compiled, and the network trained, before the clock starts.
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
from numpyro_llc.problem import prepare
from numpyro_llc.schedule import check_schedule

WIDTHS = (20, 100, 75, 4)
KERNEL = {"kernel": "sgld", "batch_size": 128}


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


def bare(model, data, checkpoints, steps):
    """Seconds of the loops alone."""
    schedule = check_schedule(steps // 4, steps, 4, 10, "vectorized", False)
    arguments = {"num_data": None, "inverse_temperature": None, "localization": 1.0}
    arguments |= {"in_axes": None, "step_size": None, **KERNEL}
    problem, seconds = None, 0.0
    for center in checkpoints:
        if problem is None:
            problem = prepare(model, data, None, schedule, center=center, **arguments)
        here = problem.at(center)
        starts = here.starts(None, jax.random.key(0))
        began = time.perf_counter()
        run = sampling.Run(here.sampler, here.target, starts, jax.random.key(0), schedule, sites=())
        run.walk(steps // 4)
        run.end_warmup()
        run.draw(steps // 10, 10)
        seconds += time.perf_counter() - began
    return seconds


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
        began = time.perf_counter()
        nllc.llc_trajectory(
            jax.random.key(0), model, checkpoints, data, **KERNEL, **lengths, progress_bar=False
        )
        return time.perf_counter() - began

    def memory():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    bare(model, data, checkpoints[:1], options.steps)
    plain = bare(model, data, checkpoints, options.steps)
    sampling.advance.clear_cache()
    run(checkpoints[:1])
    before = memory()
    full = run(checkpoints)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(
        f"{options.count} checkpoints of {size} parameters, {options.steps} steps of 4 chains: "
        f"llc_trajectory {full:.1f} s, its loops bare {plain:.1f} s, ratio {full / plain:.3f}; "
        f"{sampling.advance._cache_size()} compilation(s); peak memory {before:.0f} MiB after the "
        f"first checkpoint, {memory():.0f} MiB at the end"
    )


if __name__ == "__main__":
    main()
