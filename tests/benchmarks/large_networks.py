"""Memory and seconds of steps of large networks: tanh layers of equal widths, on the CPU.

Run ``python tests/benchmarks/large_networks.py`` (options: ``--help``). Prints

- with ``--memory``, of each kernel and number of chains, what XLA allocates for the compiled steps,
  in floats for each parameter: state, what chains share (centre, gradient there, lowest point) and
  temporaries; nothing is run;
- with ``--ratio``, the seconds of a run of ``--steps`` steps, without compilation, over those of as
  many turns of a loop of gradient and normal noise alone;
- else the seconds of a run of ``--steps`` steps, half of them warm-up, calibrations and compilation
  included, and the peak memory of the process, data and centre included. 10 layers of 3162 units
  are 10⁸ parameters.
"""

import argparse
import resource
import time
import warnings
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer.util import log_density

import numpyro_llc as nllc
from numpyro_llc.kernels import kernel_of
from numpyro_llc.models import PyTree
from numpyro_llc.sampling import Plan, check_schedule, make_plan
from numpyro_llc.sampling._compiled import advance, start
from numpyro_llc.sampling._layout import layout_of


def network(width: int, layers: int, rows: int) -> tuple[Callable, dict, tuple]:
    """A model, its centre and its data, which it fits to noise of variance 1."""

    def model(x, y=None):
        for k in range(layers):
            prior = dist.Normal(0, 1).expand((width, width)).to_event(2)
            x = jnp.tanh(x @ numpyro.sample(f"w{k}", prior))
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    *keys, key_x, key_y = jax.random.split(jax.random.key(0), layers + 2)
    center = {
        f"w{k}": jax.random.normal(keys[k], (width, width)) * width**-0.5 for k in range(layers)
    }
    x = jax.random.normal(key_x, (rows, width))
    mean = x
    for k in range(layers):
        mean = jnp.tanh(mean @ center[f"w{k}"])
    return model, center, (x, mean + jax.random.normal(key_y, mean.shape))


def plan_of(options: argparse.Namespace, kernel: str, chains: int) -> Plan:
    model, center, data = network(options.width, options.layers, options.rows)
    schedule = check_schedule(8, 8, chains, 1, "vectorized", False)
    local = nllc.localize(model, center=center)
    return make_plan(local, data, None, kernel_of(kernel, options.batch), schedule)


def program_of(plan: Plan) -> jax.stages.Lowered:
    """The steps of a run; nothing is compiled or run."""
    layout, chains = layout_of(plan, []), plan.schedule.num_chains

    def repeated(center: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (chains, *x.shape)), center)

    z = jax.eval_shape(repeated, plan.target.center)
    begin = partial(start, plan.sampler, layout)
    progress = jax.eval_shape(begin, jax.random.key(0), z, {}, plan.target)
    given = progress, {}, plan.target, None, {}, 1, 1, True, True
    return advance.lower(plan.sampler, layout, (), *given)


def memory(options: argparse.Namespace) -> None:
    """Print what the compiled steps allocate, in floats for each parameter."""
    print("kernel  chains  arguments  temporaries     all  by chain")
    for kernel in options.kernels:
        for chains in options.chains:
            plan = plan_of(options, kernel, chains)
            found = program_of(plan).compile().memory_analysis()
            unit = 4 * plan.target.dimension
            held, temporary = found.argument_size_in_bytes, found.temp_size_in_bytes
            every = (held + temporary) / unit
            print(
                f"{kernel:8s}{chains:6d}{held / unit:11.2f}{temporary / unit:13.2f}"
                f"{every:8.2f}{every / chains:10.2f}",
                flush=True,
            )


def seconds_of_loop(
    model: Callable, center: dict, data: tuple, options: argparse.Namespace
) -> float:
    """Seconds of as many turns of a loop that takes a gradient and adds normal noise."""

    def loss(z: PyTree, x: jax.Array, y: jax.Array) -> jax.Array:
        return -log_density(model, (x, y), {}, z)[0]

    @jax.jit
    def turns(z: PyTree, x: jax.Array, y: jax.Array, count: int) -> PyTree:
        def turn(i: jax.Array, z: PyTree) -> PyTree:
            key, *keys = jax.random.split(jax.random.fold_in(jax.random.key(0), i), len(z) + 1)
            rows = jax.random.randint(key, (options.batch,), 0, len(x))
            slope = jax.grad(loss)(z, x[rows], y[rows])
            noise = {k: jax.random.normal(own, z[k].shape) for k, own in zip(z, keys, strict=True)}
            return jax.tree.map(lambda a, b, c: a - 1e-9 * b + 1e-9 * c, z, slope, noise)

        return jax.lax.fori_loop(0, count, turn, z)

    jax.block_until_ready(turns(center, *data, 1))
    count = min(options.steps, 50)
    began = time.perf_counter()
    jax.block_until_ready(turns(center, *data, count))
    return (time.perf_counter() - began) * options.steps / count


def attributes_of_run(
    network: tuple[Callable, dict, tuple],
    kernel: str,
    *,
    batch: int,
    chains: int,
    steps: int,
    thinning: int,
) -> dict:
    """Of a run of so many steps, half of them warm-up."""
    model, center, data = network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)  # few draws, which is said
        idata = nllc.estimate_llc(
            jax.random.key(1),
            model,
            data,
            center=center,
            kernel=kernel,
            batch_size=batch,
            num_chains=chains,
            num_warmup=steps // 2,
            num_samples=steps // 2,
            thinning=thinning,
            store_sites=False,
            progress_bar=False,
        )
    return idata["posterior"].attrs


def timed(options: argparse.Namespace) -> None:
    """Run the first kernel with the first number of chains, and print time and peak memory."""
    given = network(options.width, options.layers, options.rows)
    model, center, data = given
    size, half = sum(leaf.size for leaf in center.values()), options.steps // 2
    loop = seconds_of_loop(model, center, data, options) if options.ratio else None
    began = time.perf_counter()
    attrs = attributes_of_run(
        given,
        options.kernels[0],
        batch=options.batch,
        chains=options.chains[0],
        steps=2 * half,
        thinning=half // 2,
    )
    took = time.perf_counter() - began
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux
    print(f"{size:,} parameters, {options.kernels[0]}, {options.chains[0]} chains")
    print(
        f"{took:.0f} s for {2 * half} steps, {attrs['compilation_time']:.0f} s of it compilation; "
        f"{attrs['gradient_evaluations']:.0f} gradients"
    )
    if loop is not None:
        seconds = attrs["sampling_time"] - attrs["compilation_time"]
        print(
            f"{seconds:.1f} s without compilation, {seconds / loop:.2f} times the loop's {loop:.1f}"
        )
    print(f"peak {peak / 1e9:.2f} GB, {peak / 4 / size:.1f} floats for each parameter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=3162)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kernels", nargs="+", default=["sgnht"])
    parser.add_argument("--chains", type=int, nargs="+", default=[1])
    parser.add_argument("--ratio", action="store_true", help="over a loop of gradient and noise")
    parser.add_argument("--memory", action="store_true", help="compile only, and print the sizes")
    options = parser.parse_args()
    memory(options) if options.memory else timed(options)


if __name__ == "__main__":
    main()
