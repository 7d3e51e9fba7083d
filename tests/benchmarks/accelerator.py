"""Steps of large networks on an accelerator: how many a second, and what share of its limits.

Run ``python tests/benchmarks/accelerator.py`` (options: ``--help``) where JAX finds a GPU.

First prints what the device reaches: the bandwidth of a copy, bytes read and written, and the
operations of a product of matrices, in float32 and as XLA rounds its factors by default. Then, of
tanh layers of equal widths, kernel by kernel:

- steps a second, times chains: of a whole run, calibrations and looks at the loss included; half of
  the steps are warm-up; a short run before it compiles;
- the time over that of as many turns of a loop of gradient and normal noise alone, chain by chain;
- operations a second, 6 by parameter, row and gradient, and their share of what the device reaches;
- memory traffic that cannot be avoided, and its share: of a step and chain what a kernel reads and
  writes (position, noise not counted; centre, gradient there; momentum), of a gradient two readings
  of the parameters and a writing, and the gradient read;
- the peak of the device's memory so far, in floats for each parameter, and seconds of compilation.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from large_networks import attributes_of_run, network, seconds_of_loop

LAYERS, ROWS = 10, 4096
STEP_FLOATS = {"sgld": 4, "sgnht": 6}
"""Read and written by parameter, chain and step: z, z* and the gradient there; momenta."""
GRADIENT_FLOATS = 4
"""Of a gradient: parameters forward and back, the gradient written and read."""


class Case(NamedTuple):
    width: int
    batch: int
    chains: int
    steps: int


CASES = {
    "1M": Case(316, 512, 4, 4000),
    "10M": Case(1000, 256, 4, 1000),
    "100M": Case(3162, 256, 1, 400),
}


class Limits(NamedTuple):
    """What the device reaches: bytes and operations a second."""

    bytes: float
    operations: float
    rounded: float


def seconds(function: Callable[[jax.Array], jax.Array], x: jax.Array, times: int = 5) -> float:
    """The shortest of some runs."""
    jax.block_until_ready(function(x))
    found = []
    for _ in range(times):
        began = time.perf_counter()
        jax.block_until_ready(function(x))
        found.append(time.perf_counter() - began)
    return min(found)


def limits(side: int) -> Limits:
    x = jax.random.normal(jax.random.key(0), (side, side))

    @jax.jit
    def copies(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 20, lambda i, x: x * (1.0 + 1e-9 * i), x)

    def products(precision: str | None) -> Callable[[jax.Array], jax.Array]:
        @jax.jit
        def turns(x: jax.Array) -> jax.Array:
            scale = side**-0.5
            return jax.lax.fori_loop(
                0, 5, lambda i, y: scale * jnp.matmul(x, y, precision=precision), x
            )

        return turns

    operations = 5 * 2 * side**3
    return Limits(
        20 * 2 * x.nbytes / seconds(copies, x),
        operations / seconds(products("highest"), x),
        operations / seconds(products(None), x),
    )


def peak_bytes() -> float:
    found = jax.devices()[0].memory_stats()
    return float("nan") if found is None else found["peak_bytes_in_use"]


class Prepared(NamedTuple):
    """A case and a kernel, compiled: how they run, and the seconds of a turn of the bare loop."""

    name: str
    kernel: str
    run: Callable[[int], dict]
    size: int
    compilation: float
    turn: float


def prepared(name: str, kernel: str) -> Prepared:
    width, batch, chains, steps = CASES[name]
    given = network(width, LAYERS, ROWS)
    model, center, data = given

    def run(steps: int) -> dict:
        thinning = max(1, steps // 40)
        return attributes_of_run(
            given, kernel, batch=batch, chains=chains, steps=steps, thinning=thinning
        )

    size = sum(leaf.size for leaf in center.values())
    loop = argparse.Namespace(batch=batch, steps=steps)
    turn = seconds_of_loop(model, center, data, loop) / steps
    return Prepared(name, kernel, run, size, run(8)["compilation_time"], turn)


def report(case: Prepared, reached: Limits, divisor: int) -> None:
    """Run, and print a row of the second table."""
    _, batch, chains, steps = CASES[case.name]
    steps //= divisor
    attrs = case.run(steps)
    took = attrs["sampling_time"] - attrs["compilation_time"]
    gradients = chains * float(attrs["gradient_evaluations"])
    operations = 6 * case.size * batch * gradients / took
    floats = STEP_FLOATS[case.kernel] * steps * chains + GRADIENT_FLOATS * gradients
    traffic = 4 * case.size * floats / took
    print(
        f"{case.name:>5s} {case.size:12,d} {case.kernel:>6s} {chains:3d} x {batch:4d} {steps:6d} "
        f"{took:8.2f} {steps * chains / took:13.1f} {gradients:9.0f} "
        f"{took / (case.turn * steps * chains):6.2f} {operations / 1e12:8.2f} "
        f"{100 * operations / reached.operations:4.1f} % {traffic / 1e9:6.0f} "
        f"{100 * traffic / reached.bytes:4.1f} % {peak_bytes() / 4 / case.size:6.1f} "
        f"{case.compilation:8.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--kernels", nargs="+", default=["sgld", "sgnht"])
    parser.add_argument("--side", type=int, default=16384, help="of the matrices of the limits")
    parser.add_argument("--divisor", type=int, default=1, help="so many times fewer steps")
    options = parser.parse_args()
    reached = limits(options.side)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(
        f"copy {reached.bytes / 1e9:.0f} GB/s; products in float32 {reached.operations / 1e12:.1f} "
        f"TFLOP/s, by default {reached.rounded / 1e12:.1f} TFLOP/s"
    )
    print(
        " case   parameters kernel chains x B  steps  seconds chain-steps/s gradients  ratio "
        " TFLOP/s  share   GB/s  share floats compiled"
    )
    for name in options.cases:
        for kernel in options.kernels:
            report(prepared(name, kernel), reached, options.divisor)


if __name__ == "__main__":
    main()
