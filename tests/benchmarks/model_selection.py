"""How often criteria pick the true rank, over data sets of known rank: reduced-rank regression.

``y = B A x + noise`` with B A of rank 2. Candidates are H = 0, 1, ... hidden units. BIC counts
parameters, or those that are left when the symmetry of the factors is taken out; WBIC is sampled
under a normal prior, the local free energy around each maximum of the likelihood, WAIC at β = 1.
Data sets go through one compiled program, as blocks with data and centre of their own. Run it:
``python tests/benchmarks/model_selection.py``.
"""

import argparse
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.infer import HMC

import numpyro_llc as nllc
from numpyro_llc.inference_data import monte_carlo
from numpyro_llc.sampling import Run, check_schedule, finish, make_plan

IN, OUT, MOST, RANK = 6, 6, 4, 2


def model(x, y, active):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([MOST, IN]).to_event(2))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([OUT, MOST]).to_event(2))
    with numpyro.plate("rows", x.shape[0]):
        mean = x @ ((b * active) @ a).T
        numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)


def data_sets(count, num_data, strengths, seed):
    """Inputs and targets of each data set: `[count, num_data, IN]` and `[count, num_data, OUT]`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, num_data, IN))
    left = np.linalg.qr(rng.normal(size=(count, OUT, OUT)))[0][:, :, :RANK]
    right = np.linalg.qr(rng.normal(size=(count, IN, IN)))[0][:, :, :RANK]
    product = np.einsum("kir,r,kjr->kij", left, strengths, right)
    return x, np.einsum("kij,knj->kni", product, x) + rng.normal(size=(count, num_data, OUT))


def condensed(x, y):
    """As many rows as columns, which have the loss of all rows but for a constant; and that."""
    q, r = np.linalg.qr(x)
    z = np.einsum("kni,knj->kij", q, y)
    rest = 0.5 * (np.sum(y**2, axis=(1, 2)) - np.sum(z**2, axis=(1, 2)))
    return r, z, rest + 0.5 * OUT * np.log(2 * np.pi) * (x.shape[1] - IN)


def maximum(r, z, rank):
    """Factors of the maximum of the likelihood among products of `rank`, filled up with zeros."""
    u, s, v = np.linalg.svd(z.transpose(0, 2, 1))
    kept = np.einsum("kir,kr,krj->kij", u[:, :, :rank], s[:, :rank], v[:, :rank])
    u, s, v = np.linalg.svd(kept @ np.linalg.inv(r).transpose(0, 2, 1))
    a, b = np.zeros((len(r), MOST, IN)), np.zeros((len(r), OUT, MOST))
    root = np.sqrt(s[:, :rank])
    a[:, :rank], b[:, :, :rank] = root[..., None] * v[:, :rank], u[:, :, :rank] * root[:, None]
    return {"a": a, "b": b}


def sampled(options, kernel, arrays, centers, num_data, beta, key):
    """Draws of all data sets at one β, around centres of their own."""
    schedule = check_schedule(options.num_warmup, options.num_samples, 2, 1, "vectorized", False)
    first, center = jax.tree.map(lambda leaf: leaf[0], (arrays, centers))
    local = nllc.localize(model, center=center, num_data=num_data, inverse_temperature=beta)
    plan = make_plan(local, first, None, kernel, schedule)
    single = jnp.float32
    cells = {
        "arrays": tuple(jnp.asarray(array, single) for array in arrays),
        "center": {name: jnp.asarray(value, single) for name, value in centers.items()},
    }
    program = plan.reading.program
    cells["center_losses"] = jax.vmap(program.losses)(cells["center"], cells["arrays"])
    key_starts, key_chains = jax.random.split(key)
    starts = {
        name: jnp.repeat(value, 2, axis=0)
        + 0.05
        * jax.random.normal(jax.random.fold_in(key_starts, k), (2 * len(value), *value.shape[1:]))
        for k, (name, value) in enumerate(cells["center"].items())
    }
    target = replace(plan.target, inverse_temperature=jnp.asarray(beta, single))
    plan = replace(plan, target=target)
    run = Run(plan, starts, key_chains, sites=("a", "b"), cells=cells)
    draws = finish(run).draws
    count = len(arrays[0])
    r_hats = [monte_carlo(own).r_hat for own in draws.excess_loss[:40].reshape(20, 2, -1)]
    print(f"    β = {beta:.2g}: median R-hat {np.median(r_hats):.3f}", flush=True)
    losses = np.asarray(cells["center_losses"]["y"], np.float64).sum(axis=1)
    excess = draws.excess_loss.reshape(count, -1)
    products = np.einsum(
        "cdij,cdjk->cdik", draws.positions["b"] * arrays[2][0], draws.positions["a"]
    )
    return losses[:, None] + excess, products.reshape(count, -1, OUT, IN)


def waic(x, y, products):
    """-elpd of each data set, from draws of the product `[set, draw, OUT, IN]`."""
    values = np.empty(len(x))
    for k in range(len(x)):
        residuals = y[k] - np.einsum("dij,nj->dni", products[k], x[k])
        loss = 0.5 * np.sum(residuals**2, axis=2) + 0.5 * OUT * np.log(2 * np.pi)
        level = loss.min(axis=0)
        density = np.log(np.mean(np.exp(level - loss), axis=0)) - level
        values[k] = np.sum(loss.var(axis=0) - density)
    return values


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-sets", type=int, default=200)
    parser.add_argument("--num-data", type=int, default=100)
    parser.add_argument("--strengths", type=float, nargs=RANK, default=[1.0, 0.6])
    parser.add_argument("--num-warmup", type=int, default=150)
    parser.add_argument("--num-samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    n = options.num_data
    x, y = data_sets(options.data_sets, n, options.strengths, options.seed)
    r, z, rest = condensed(x, y)
    # Steps of equal length: side by side, all data sets would wait for the longest trajectory.
    kernel = HMC(model, num_steps=10, trajectory_length=None)
    order, began = np.log(n), time.perf_counter()
    energies = {}
    for rank in range(MOST + 1):
        active = np.broadcast_to(np.arange(MOST) < rank, (options.data_sets, MOST)).astype(
            np.float32
        )
        at_maximum, key = maximum(r, z, rank), jax.random.key(options.seed + rank)
        at_zero = jax.tree.map(np.zeros_like, at_maximum)

        def run(centers, beta, key=key, active=active):
            return sampled(options, kernel, (r, z, active), centers, n, beta, key)

        product = np.einsum("kij,kjl->kil", at_maximum["b"], at_maximum["a"])
        fitted = np.einsum("kij,knj->kni", product, r)
        loss = (
            rest + 0.5 * np.sum((z - fitted) ** 2, axis=(1, 2)) + 0.5 * OUT * np.log(2 * np.pi) * IN
        )
        local, _ = run(at_maximum, 1 / order)
        tempered, _ = run(at_zero, 1 / order)
        _, products = run(at_zero, 1.0)
        llc = (rest + local.mean(axis=1) - loss) / order
        energies[rank] = {
            "BIC, d = H(M + N)": loss + 0.5 * rank * (IN + OUT) * order,
            "BIC, d = H(M + N - H)": loss + 0.5 * rank * (IN + OUT - rank) * order,
            "WBIC": rest + tempered.mean(axis=1),
            "local free energy": loss + llc * order,
            "AIC, d = H(M + N - H)": loss + rank * (IN + OUT - rank),
            "WAIC": waic(x, y, products),
        }
        print(
            f"H = {rank}: mean llc {llc.mean():.2f}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    picked = {
        name: np.argmin([energies[rank][name] for rank in energies], axis=0) for name in energies[0]
    }
    table = pd.DataFrame(
        {name: np.bincount(choice, minlength=MOST + 1) for name, choice in picked.items()}
    ).T.rename(columns="H = {}".format)
    table["right"] = [f"{100 * np.mean(choice == RANK):.0f} %" for choice in picked.values()]
    print(table.to_string())
    return table


if __name__ == "__main__":
    main()
