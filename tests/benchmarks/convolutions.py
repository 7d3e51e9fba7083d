"""What a step costs on a small convolutional network, against the gradient alone.

Run ``python tests/benchmarks/convolutions.py`` (options: ``--help``). Minutes, mostly compilation.

The network has two layers of 3×3 kernels, layer norm after each, and d = 1466. Timed in one process
in turn, medians of processor seconds of all threads, so that other work on the machine counts less:

- gradient: of all chains by ``vmap``, compiled alone, with XLA's convolutions;
- step: of a kernel at a fixed step size, in a compiled loop, without control variates;
- gradient in a loop: the first, in a loop;

the last two with matrix products of patches (as sampled on CPUs), and with XLA's convolutions.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_llc as nllc
from numpyro_llc.local import LocalTarget
from numpyro_llc.local._target import make_target
from numpyro_llc.models import _convolutions, read_model, with_batches

CLASSES, WIDTHS = 10, (8, 16)
STEP_SIZE = 1e-7


def layer(params, x):
    x = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = x + params["bias"]
    x = x - x.mean(axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    return jax.nn.relu(x * params["scale"] + params["shift"])


def network(params, x):
    for part in params["layers"]:
        x = layer(part, x)
    return x.mean(axis=(1, 2)) @ params["readout"] + params["bias"]


def initial(rng: np.random.Generator) -> dict:
    layers, before = [], 1
    for width in WIDTHS:
        kernel = rng.normal(size=(3, 3, before, width)) / np.sqrt(9 * before)
        zero = np.zeros(width)
        layers.append({"kernel": kernel, "bias": zero, "scale": zero + 1.0, "shift": zero})
        before = width
    readout = rng.normal(size=(before, CLASSES)) / np.sqrt(before)
    params = {"layers": layers, "readout": readout, "bias": np.zeros(CLASSES)}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def target_of(options: argparse.Namespace) -> LocalTarget:
    rng = np.random.default_rng(0)
    params = initial(rng)
    x = rng.normal(size=(options.rows, 8, 8, 1)).astype(np.float32)
    y = rng.integers(0, CLASSES, options.rows)
    model = nllc.network_model(network, params, "categorical")
    reading = read_model(model, (x, y), {}, center={"params": params})
    return make_target(
        with_batches(reading),
        reading.arrays,
        reading.center,
        inverse_temperature=1.0 / np.log(options.rows),
        localization={"params": 100.0},
        center_losses=reading.center_losses,
    )


@contextmanager
def convolutions(as_they_are: bool) -> Iterator[None]:
    """Trace with XLA's convolutions, if `as_they_are`."""
    kept = _convolutions.without_convolutions
    if as_they_are:
        _convolutions.without_convolutions = lambda function: function
    try:
        yield
    finally:
        _convolutions.without_convolutions = kept


def cases(target: LocalTarget, options: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """By name, what runs once and tells the processor seconds of a gradient or a step."""
    keys = jax.random.split(jax.random.key(0), options.chains)
    z = jax.tree.map(lambda leaf: jnp.stack([leaf] * options.chains), target.center)

    def gradient(z, target):
        rows = jnp.arange(options.batch)
        return jax.vmap(jax.grad(lambda one: target.tempered_loss(one, rows)))(z)

    def looped(z, target, steps):
        def move(_, z):
            return jax.tree.map(lambda a, g: a - STEP_SIZE * g, z, gradient(z, target))

        return jax.lax.fori_loop(0, steps, move, z)

    def clock(run: Callable[[], object], steps: int) -> Callable[[], float]:
        def once() -> float:
            began = time.process_time()
            jax.block_until_ready(run())
            return (time.process_time() - began) / steps

        return once

    found = {}
    for name, as_they_are in (("products", False), ("XLA's", True)):
        with convolutions(as_they_are):
            if as_they_are:
                alone = jax.jit(gradient).lower(z, target).compile()
                found["gradient"] = clock(partial(alone, z, target), 1)
            loop = jax.jit(lambda *args: looped(*args)).lower(z, target, 1).compile()
            found[f"gradient in a loop, {name}"] = clock(
                partial(loop, z, target, options.steps), options.steps
            )
            for kernel in (nllc.SGLD, nllc.SGNHT):
                sampler = kernel(
                    batch_size=options.batch, step_size=STEP_SIZE, control_variates=False
                ).sampler
                state = sampler.end_warmup(jax.jit(sampler.init)(keys, z, target), 1.0)
                state = state._replace(i=state.i + 1)  # step 0 calibrates
                step = jax.jit(
                    lambda state, target, steps, sampler=sampler: jax.lax.fori_loop(
                        0, steps, lambda _, s: sampler.step(s, target), state
                    )
                )
                step = step.lower(state, target, 1).compile()
                found[f"{kernel.__name__} step, {name}"] = clock(
                    partial(step, state, target, options.steps), options.steps
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="of a timed run")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    target = target_of(options)
    print(f"d = {target.dimension}")
    timed = cases(target, options)
    seconds = {name: [] for name in timed}
    for _ in range(1 + options.repeats):
        for name, run in timed.items():
            seconds[name].append(run())
    alone = statistics.median(seconds["gradient"][1:])
    for name, values in seconds.items():
        value = statistics.median(values[1:])
        print(f"{name:30} {1e3 * value:9.2f} ms {value / alone:7.2f}")


if __name__ == "__main__":
    main()
