"""Chain-steps per second on deep linear networks, ours beside others, and seconds to an error.

Run ``python tests/benchmarks/chain_steps.py`` (options: ``--help``). It takes a quarter of an hour
on two cores. For the columns of devinterp, ``pip install devinterp==1.3.2`` beside numpyro_llc.

Prints two tables, both of the CPU. The first has chains times steps by second, medians of runs in
turn, compilation and warm-up left out, of

- sgld: the kernel at a fixed step size in our own loop;
- sgld*, psgld*, sgnht*: with a step size found in a warm-up; a step may be cut into substeps;
- MCMC: the first under ``numpyro.infer.MCMC``;
- bare: a loop that draws a batch, takes its gradient, written by hand, and moves: no noise;
- devinterp: SGLD in its ``sample``, chains in turn, from a DataLoader as in its README;
- devinterp+: from a DataLoader that takes a batch in one slice, not row by row.

The second has, for the smallest network, λ̂ and the seconds to a Monte Carlo error of 2 %: those of
compilation and warm-up, and those of sampling times the square of (error / 2 %).
"""

import argparse
import functools
import importlib.util
import itertools
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC

import numpyro_llc as nllc
from numpyro_llc.inference_data import monte_carlo
from numpyro_llc.local._target import LocalTarget, make_target
from numpyro_llc.models import read_model, with_batches

WIDTHS = {400: (10,) * 5, 100_000: (158,) * 5, 1_000_000: (500,) * 5}
ROWS = 20_000
BETA = 1.0 / np.log(ROWS)
TIMED_STIFFNESS = 1e-3
"""Step size times curvature where steps are only timed: so short that no chain leaves."""
SETUP_SHARE = 0.05
"""Most of a timed run that a run of one step may take."""
WARMUP_SECONDS = 20.0
ERROR = 0.02
HAS_DEVINTERP = importlib.util.find_spec("devinterp") is not None
OURS, ADAPTIVE = "sgld", ("sgld*", "psgld*", "sgnht*")
OTHERS = ("MCMC", "bare", "devinterp", "devinterp+")


class Network(NamedTuple):
    """A deep linear network, at half of its full rank, and the data that it makes."""

    model: Callable
    center: dict[str, jax.Array]
    x: jax.Array
    y: jax.Array

    @property
    def second_moment(self) -> np.ndarray:
        """``xᵀx``, of which the loss over all rows is a function."""
        x = np.asarray(self.x, np.float64)
        return x.T @ x

    @property
    def curvature(self) -> float:
        """At least the largest eigenvalue of β ∇²nL + 1 at the centre: all layers have norm 1."""
        return 1.0 + BETA * len(self.center) * float(np.linalg.eigvalsh(self.second_moment)[-1])


def network(widths: tuple[int, ...], seed: int = 0) -> Network:
    """Layers ``Q_k P Q_{k+1}ᵀ``, Q orthogonal, P a projection: the most singular of this rank."""
    rng = np.random.default_rng(seed)
    turns = [np.linalg.qr(rng.normal(size=(width, width)))[0] for width in widths]
    rank = min(widths) // 2
    layers = [a[:, :rank] @ b[:, :rank].T for a, b in itertools.pairwise(turns)]
    x = rng.normal(size=(ROWS, widths[0]))
    center = {f"w{k}": jnp.asarray(layer, jnp.float32) for k, layer in enumerate(layers)}

    def model(x, y):
        for k, shape in enumerate(itertools.pairwise(widths)):
            x = x @ numpyro.sample(f"w{k}", dist.Normal(0, 1).expand(shape).to_event(2))
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    x = jnp.asarray(x, jnp.float32)
    return Network(model, center, x, functools.reduce(jnp.matmul, center.values(), x))


def learning_coefficient(widths: tuple[int, ...]) -> float:
    """λ of a deep linear network of equal widths at half rank (Aoyagi 2024, theorem 1)."""
    width, rank, layers = widths[0], widths[0] // 2, len(widths) - 1
    rest = width - rank  # equal excess widths, all of them in Aoyagi's set
    remainder = (layers + 1) * rest - (-(-(layers + 1) * rest // layers) - 1) * layers
    return (
        rank * (2 * width - rank) / 2
        + remainder * (layers - remainder) / (4 * layers)
        - (layers - 1) / (4 * layers) * ((layers + 1) * rest) ** 2
        + (layers + 1) * layers / 4 * rest**2
    )


class Compiler:
    """Clock of the seconds that JAX spends compiling: NumPyro compiles in each of its runs."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration: float, **_: str) -> None:
        if event.endswith(("/backend_compile_duration", "/jaxpr_to_mlir_module_duration")):
            self.seconds += duration


COMPILER = Compiler()


def seconds(run: Callable[[int], None], steps: int) -> float:
    """Wall time of a run, less compilation."""
    began = time.perf_counter() - COMPILER.seconds
    run(steps)
    return time.perf_counter() - COMPILER.seconds - began


def local_target(net: Network) -> LocalTarget:
    """What ``estimate_llc`` samples, with batches."""
    reading = read_model(net.model, (net.x, net.y), {}, center=net.center)
    return make_target(
        with_batches(reading),
        reading.arrays,
        reading.center,
        inverse_temperature=BETA,
        localization=dict.fromkeys(net.center, 1.0),
        center_losses=reading.center_losses,
    )


def starts(net: Network, chains: int) -> dict[str, jax.Array]:
    """Starts a little away from the centre, ``[chain, ...]``."""
    keys = jax.random.split(jax.random.key(0), len(net.center))
    return {
        name: w + 0.01 * jax.random.normal(key, (chains, *w.shape))
        for key, (name, w) in zip(keys, net.center.items(), strict=True)
    }


def our_loop(net: Network, options: argparse.Namespace, name: str) -> Callable[[int], None]:
    """The kernel `name` in our loop; with a star, its step size adapted in a warm-up."""
    kernel = {"sgld": nllc.SGLD, "psgld": nllc.PSGLD, "sgnht": nllc.SGNHT}[name.rstrip("*")]
    step_size = None if name.endswith("*") else TIMED_STIFFNESS / net.curvature
    sampler = kernel(step_size=step_size, batch_size=options.batch).sampler
    target = local_target(net)
    keys = jax.random.split(jax.random.key(1), options.chains)

    @functools.partial(jax.jit, donate_argnums=0)
    def loop(state, target, steps):
        return jax.lax.fori_loop(0, steps, lambda _, s: sampler.step(s, target), state)

    state = jax.jit(sampler.init)(keys, starts(net, options.chains), target)

    def run(steps: int) -> None:
        nonlocal state
        state = jax.block_until_ready(loop(state, target, steps))

    if step_size is None:
        warm_up(run, options.warmup)
    state = sampler.end_warmup(state, 1.0)
    return run


def warm_up(run: Callable[[int], None], steps: int) -> None:
    """So many steps, or as many as ``WARMUP_SECONDS`` allow."""
    took = 0.0
    for _ in range(0, steps, 8):
        took += seconds(run, 8)
        if took > WARMUP_SECONDS:
            return


def numpyro_loop(net: Network, options: argparse.Namespace) -> Callable[[int], None]:
    """NumPyro's ``MCMC`` around our kernel: a run goes on from where the last one ended."""
    localized = nllc.localize(net.model, center=net.center, inverse_temperature=BETA)
    kernel = nllc.SGLD(
        localized, step_size=TIMED_STIFFNESS / net.curvature, batch_size=options.batch
    )

    @functools.cache
    def compiled(steps: int) -> MCMC:
        mcmc = MCMC(
            kernel,
            num_warmup=0,
            num_samples=steps,
            thinning=steps,
            num_chains=options.chains,
            chain_method="vectorized",
            progress_bar=False,
            jit_model_args=True,
        )
        mcmc.run(jax.random.key(2), net.x, net.y)
        mcmc.post_warmup_state = mcmc.last_state
        return mcmc

    def run(steps: int) -> None:
        mcmc = compiled(steps)
        mcmc.run(mcmc.last_state.rng_key, net.x, net.y)
        jax.block_until_ready(mcmc.last_state)

    return run


def bare_loop(net: Network, options: argparse.Namespace) -> Callable[[int], None]:
    """A batch, its gradient for each chain, and a move along it."""

    def loss(layers, x, y):
        error = functools.reduce(jnp.matmul, layers, x) - y
        return BETA * ROWS * 0.5 * jnp.mean(jnp.sum(jnp.square(error), axis=1))

    @functools.partial(jax.jit, donate_argnums=0)
    def loop(layers, key, x, y, steps):
        def step(i, layers):
            rows = jax.random.randint(jax.random.fold_in(key, i), (options.batch,), 0, ROWS)
            gradient = jax.vmap(jax.grad(loss), (0, None, None))(layers, x[rows], y[rows])
            return jax.tree.map(lambda w, g: w - 1e-9 * g, layers, gradient)

        return jax.lax.fori_loop(0, steps, step, layers)

    layers = list(starts(net, options.chains).values())

    def run(steps: int) -> None:
        nonlocal layers
        layers = jax.block_until_ready(loop(layers, jax.random.key(3), net.x, net.y, steps))

    return run


def torch_network(net: Network) -> Any:
    """The network at its centre, in torch."""
    import torch

    def layer(w):
        linear = torch.nn.Linear(*w.shape, bias=False)
        linear.weight.data = torch.tensor(np.array(w.T))
        return linear

    return torch.nn.Sequential(*(layer(w) for w in net.center.values()))


def torch_loader(net: Network, batch: int, by_row: bool) -> Any:
    """Batches of the data: rows fetched and stacked one by one, as usual, or in one slice."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Sliced(TensorDataset):
        def __getitems__(self, rows):
            return [tensor[rows] for tensor in self.tensors]

    tensors = torch.tensor(np.array(net.x)), torch.tensor(np.array(net.y))
    if by_row:
        return DataLoader(TensorDataset(*tensors), batch_size=batch, shuffle=True)
    data = Sliced(*tensors)
    return DataLoader(data, batch_size=batch, shuffle=True, collate_fn=lambda rows: rows)


def devinterp_trace(
    net: Network,
    options: argparse.Namespace,
    draws: int,
    *,
    burn_in: int = 0,
    stiffness: float = TIMED_STIFFNESS,
    by_row: bool = False,
) -> np.ndarray:
    """What devinterp records of λ̂, ``nβ`` times the loss of a batch, ``[chain, draw]``."""
    from devinterp.optim import SGLD
    from devinterp.slt.llc import LLCEstimator
    from devinterp.slt.sampler import sample

    def evaluate(model, data):
        x, y = data
        return 0.5 * ((model(x) - y) ** 2).sum(dim=1).mean()

    nbeta = BETA * ROWS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sample(
            torch_network(net),
            torch_loader(net, options.batch, by_row),
            [LLCEstimator(options.chains, draws, init_loss=0.0, nbeta=nbeta)],
            evaluate,
            SGLD,
            {"lr": stiffness / net.curvature, "nbeta": nbeta, "localization": 1.0},
            num_draws=draws,
            num_chains=options.chains,
            num_burnin_steps=burn_in,
            cores=1,
            verbose=False,
        )
    return nbeta * found["loss/trace"].astype(np.float64)


def contestants(net: Network, options: argparse.Namespace) -> dict[str, Callable[[int], None]]:
    """By column, a function that makes so many steps of each chain."""
    runs = {name: our_loop(net, options, name) for name in (OURS, *ADAPTIVE)}
    runs["MCMC"], runs["bare"] = numpyro_loop(net, options), bare_loop(net, options)
    if HAS_DEVINTERP:
        theirs = functools.partial(devinterp_trace, net, options)
        runs["devinterp"] = functools.partial(theirs, by_row=True)
        runs["devinterp+"] = theirs
    return runs


def enough_steps(run: Callable[[int], None], at_least: float) -> int:
    """Steps that take `at_least` seconds, and far longer than a run of one step."""
    run(1)
    wanted, steps = max(at_least, seconds(run, 1) / SETUP_SHARE), 4
    while (took := seconds(run, steps)) < 0.3 * wanted:
        steps *= 4
    return max(1, round(steps * wanted / took))


def rates(net: Network, options: argparse.Namespace) -> dict[str, float]:
    """Chain-steps per second by column."""
    runs, steps = contestants(net, options), {}
    for name, run in runs.items():
        like = OURS if name == "MCMC" else name  # each new length of an MCMC run is compiled
        steps[name] = options.steps or steps.get(like) or enough_steps(run, options.seconds)
        run(steps[name])  # and this run compiles it
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, steps[name]))
    return {
        name: options.chains * steps[name] / statistics.median(took) for name, took in times.items()
    }


def first_table(options: argparse.Namespace) -> None:
    """Print the rates of all networks."""
    columns = (OURS, *ADAPTIVE, *OTHERS, f"{OURS}/devinterp", f"bare/{OURS}")
    print(f"Chain-steps per second: {options.chains} chains, batches of {options.batch}")
    print("parameters", *(name.rjust(7) for name in columns), sep="  ", flush=True)
    for size in options.nets:
        net = network(WIDTHS[size])
        found = rates(net, options)
        for ratio in columns[-2:]:
            above, below = ratio.split("/")
            if above in found and below in found:
                found[ratio] = found[above] / found[below]
        cells = (f"{found[name]:.4g}" if name in found else "-" for name in columns)
        padded = (c.rjust(max(7, len(name))) for name, c in zip(columns, cells, strict=True))
        count = sum(w.size for w in net.center.values())
        print(f"{count:10d}", *padded, sep="  ", flush=True)
    if HAS_DEVINTERP:
        print(f"Set-up is part of devinterp's times: at most {100 * SETUP_SHARE:g} % of each run.")
    else:
        print("devinterp is not installed: pip install devinterp==1.3.2")


class Timed(NamedTuple):
    """An estimate with the seconds it took: once, and in proportion to the draws."""

    mean: float
    error: float
    r_hat: float
    compiling: float
    warming: float
    sampling: float

    def line(self, name: str) -> str:
        needed = self.warming + self.sampling * (self.error / self.mean / ERROR) ** 2
        return (
            f"{name:<16s}{self.mean:8.2f}{100 * self.error / self.mean:9.2f}{self.r_hat:8.3f}"
            f"{self.compiling + needed:9.1f}{needed:20.1f}{self.warming + self.sampling:9.1f}"
        )


def ours_timed(net: Network, options: argparse.Namespace, kernel: str) -> Timed:
    estimate = functools.partial(
        nllc.estimate_llc,
        jax.random.key(4),
        net.model,
        (net.x, net.y),
        center=net.center,
        kernel=kernel,
        batch_size=options.batch,
        num_chains=options.chains,
        progress_bar=False,
    )
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)  # 8 draws are too few, which is said
        estimate(num_warmup=8, num_samples=8, thinning=1)
    compiling, began = time.perf_counter() - began, time.perf_counter()
    idata = estimate()
    took = time.perf_counter() - began
    found, attrs = monte_carlo(idata["posterior"]["llc"].to_numpy()), idata["posterior"].attrs
    warming = took * attrs["num_warmup"] / attrs["num_steps"]
    return Timed(found.mean, found.error, found.r_hat, compiling, warming, took - warming)


def devinterp_timed(net: Network, options: argparse.Namespace, stiffness: float) -> Timed:
    draws, began = options.draws, time.perf_counter()
    trace = devinterp_trace(net, options, draws, burn_in=draws, stiffness=stiffness)
    took = time.perf_counter() - began
    found = monte_carlo(trace)
    return Timed(found.mean, found.error, found.r_hat, 0.0, 0.5 * took, 0.5 * took)


def nuts_reference(net: Network) -> tuple[float, float]:
    """λ̂ of NUTS, and its error, on the few rows whose sum of squares is that of all rows."""
    rows = jnp.asarray(np.linalg.cholesky(net.second_moment).T, jnp.float32)
    idata = nllc.estimate_llc(
        jax.random.key(5),
        net.model,
        (rows, functools.reduce(jnp.matmul, net.center.values(), rows)),
        center=net.center,
        inverse_temperature=BETA,
        num_data=ROWS,
        num_warmup=300,
        num_samples=300,
        progress_bar=False,
    )
    found = monte_carlo(idata["posterior"]["llc"].to_numpy())
    return found.mean, found.error


def second_table(options: argparse.Namespace) -> None:
    """Print seconds to an error of 2 %: fixed costs, and the sampling scaled by the error²."""
    widths = WIDTHS[400]
    net = network(widths)
    print(f"\nSeconds to a Monte Carlo error of {100 * ERROR:g} %: 400 parameters, n = {ROWS}")
    print("                      λ̂  error %   R-hat   to 2 %   without compiling   as run")
    for kernel in ("sgld", "sgnht"):
        print(ours_timed(net, options, kernel).line(f"{kernel}*"), flush=True)
    for stiffness in (0.5, 0.05) if HAS_DEVINTERP else ():
        name = f"devinterp+ {stiffness:g}"
        try:
            print(devinterp_timed(net, options, stiffness).line(name), flush=True)
        except RuntimeError as problem:  # its own, of a loss that is not a number
            print(f"{name}  {problem}")
    mean, error = nuts_reference(net)
    print(
        f"Right is {mean:.2f} ± {error:.2f} (NUTS); λ, the limit for n to infinity, is "
        f"{learning_coefficient(widths):g}. Beside devinterp+: its step size times the top "
        "curvature at w*."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", type=int, nargs="*", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each timed run; else by --seconds")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each timed run, at least")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--warmup", type=int, default=2048, help="steps, where the kernel adapts")
    parser.add_argument("--threads", type=int, help="of torch; else as many as it takes itself")
    parser.add_argument("--draws", type=int, default=10_000, help="of devinterp in table two")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    # Where others use the machine too, torch's threads, spinning, wait for one another for long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if HAS_DEVINTERP and options.threads:
        import torch

        torch.set_num_threads(options.threads)
    first_table(options)
    second_table(options)


if __name__ == "__main__":
    main()
