"""Does sharpness-aware training find a simpler solution than SGD? On handwritten digits.

One network (64 inputs, one hidden layer, 10 classes) is trained on scikit-learn's digits from
several seeds, each by SGD and by SAM, which descends the gradient at the worst point within ρ
(Foret et al. 2021), with the same batches. λ̂ of each end point is on its training data. The script
prints, for λ̂, the training loss and the test error, the mean difference SAM - SGD over the seeds
with its standard error, and whether it is beyond two of them: the scatter over seeds decides the
claim, not the Monte Carlo error of a single λ̂, which is smaller.

Run it with ``python examples/flatness.py``: a few minutes on two cores. It needs scikit-learn.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

import numpyro_llc as nllc

mpl.use("agg")


def network(params, x):
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def loss_of(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(network(params, x), y).mean()


def make_data(num_train):
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = (x[order] / 16.0).astype(np.float32), y[order]
    return (x[:num_train], y[:num_train]), (x[num_train:], y[num_train:])


def initial(rng_key, width):
    first, second = jax.random.split(rng_key)
    return {
        "w1": jax.random.normal(first, (64, width)) / 8.0,
        "b1": jnp.zeros(width),
        "w2": jax.random.normal(second, (width, 10)) / np.sqrt(width),
        "b2": jnp.zeros(10),
    }


def train(rng_key, radius, data, width, num_steps, weight_decay):
    """SGD with momentum, of the gradient at the worst point within `radius` (0: SGD itself)."""
    x, y = map(jnp.asarray, data)
    params = initial(rng_key, width)
    schedule = optax.cosine_decay_schedule(0.1, num_steps)
    optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=0.9)
    )

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (64,), 0, len(y))
        gradient = jax.grad(loss_of)(params, x[rows], y[rows])
        length = radius / (jnp.linalg.norm(ravel_pytree(gradient)[0]) + 1e-12)
        worst = jax.tree.map(lambda leaf, slope: leaf + length * slope, params, gradient)
        gradient = jax.grad(loss_of)(worst, x[rows], y[rows])
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.fold_in(rng_key, 1), num_steps)
    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]


def compare(table, quantity):
    """Mean difference SAM - SGD over the seeds, its standard error, and the verdict."""
    by_seed = table.pivot(index="seed", columns="optimizer", values=quantity)
    difference = by_seed["SAM"] - by_seed["SGD"]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    beyond = abs(difference.mean()) > 2 * error
    return {
        "SGD": by_seed["SGD"].mean(),
        "SAM": by_seed["SAM"].mean(),
        "difference": difference.mean(),
        "error": error,
        "beyond two errors": beyond,
    }


def draw(picture, table):
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for own, other in zip(axes, ("training loss", "test error"), strict=True):
        for k, (name, part) in enumerate(table.groupby("optimizer")):
            own.errorbar(
                part[other],
                part["llc"],
                yerr=2 * part["mcse_mean"],
                fmt="o",
                color=f"C{k}",
                label=name,
            )
        own.set(xlabel=other, ylabel="λ̂ ± 2 Monte Carlo errors")
    axes[0].legend(loc="lower right")
    figure.suptitle("Digits: one point a seed")
    figure.savefig(picture, dpi=100)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--num-train", type=int, default=1200)
    parser.add_argument("--num-steps", type=int, default=4000, help="of training")
    parser.add_argument("--radius", type=float, default=0.1, help="ρ of SAM")
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--max-steps", type=int, default=20_000, help="of a chain")
    parser.add_argument("--localization", type=float, default=10.0)
    parser.add_argument("--num-warmup", type=int, default=2000)
    parser.add_argument("--relative-error", type=float, default=0.02)
    parser.add_argument("--picture", type=Path, default=Path("flatness.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    training, test = make_data(options.num_train)
    arguments_of = (training, options.width, options.num_steps, options.weight_decay)
    fit = jax.jit(jax.vmap(lambda key, radius: train(key, radius, *arguments_of)))
    seeds = np.tile(np.arange(options.seeds), 2)
    names = np.repeat(["SGD", "SAM"], options.seeds)
    keys = jax.random.split(jax.random.key(0), options.seeds)[seeds]
    centers = fit(keys, jnp.where(names == "SAM", options.radius, 0.0))
    model = nllc.network_model(network, initial(keys[0], options.width), "categorical")
    trajectory = nllc.llc_trajectory(
        jax.random.key(1),
        nllc.localize(model, center=None, localization=options.localization),
        {"params": centers},
        training,
        kernel="sgnht",
        batch_size=200,
        num_warmup=options.num_warmup,
        until={"relative_error": options.relative_error, "steps": options.max_steps},
        warm_start=False,
        progress_bar=not options.no_progress_bar,
    )
    table = trajectory[["llc", "mcse_mean", "r_hat", "status"]].to_dataframe()
    table = table.drop(columns="step", errors="ignore")
    table.insert(0, "optimizer", names)
    table.insert(1, "seed", seeds)
    table["training loss"] = np.asarray(jax.vmap(lambda p: loss_of(p, *training))(centers))
    guesses = jax.vmap(lambda p: network(p, test[0]).argmax(axis=1))(centers)
    table["test error"] = np.mean(np.asarray(guesses) != test[1], axis=1)
    print(table.round(4).to_string(index=False))
    compared = pd.DataFrame(
        {name: compare(table, name) for name in ("llc", "training loss", "test error")}
    ).T
    print(compared.to_string())
    draw(options.picture, table)
    print(f"picture: {options.picture}")
    return table, compared


if __name__ == "__main__":
    main()
