"""Grokking modular addition: λ̂ before, at and after the transition that only the test data show.

A network with one hidden layer of squares learns a + b mod p from a part of all pairs, by AdamW on
squared errors. Soon it fits all training pairs and no others; long after, it finds the general
rule, which the training accuracy does not show (Power et al. 2022; Gromov 2023). In the picture:
accuracy on training and test pairs; the training loss; λ̂ on the training pairs, at checkpoints.

The loss at a checkpoint is no exact minimum (weight decay, and AdamW is still on its way), so the
estimates before the end are of points on a slope. The status of each says so.

Run it with ``python examples/modular_addition.py``: a few minutes on two cores.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax

import numpyro_llc as nllc

mpl.use("agg")


def network(params, x):
    return jnp.square(x @ params["embeddings"]) @ params["readout"]


def make_data(modulus, share):
    """All pairs, one-hot, with their sums, one-hot; training pairs first, then test pairs."""
    one_hot = np.eye(modulus, dtype=np.float32)
    a, b = (index.ravel() for index in np.indices((modulus, modulus)))
    order = np.random.default_rng(0).permutation(modulus**2)
    x = np.concatenate([one_hot[a], one_hot[b]], axis=1)[order]
    y = one_hot[(a + b) % modulus][order]
    cut = int(share * modulus**2)
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


def loss_of(params, x, y):
    return 0.5 * jnp.mean(jnp.sum((network(params, x) - y) ** 2, axis=1))


def accuracy(params, x, y):
    return jnp.mean(network(params, x).argmax(axis=1) == y.argmax(axis=1))


def train(params, data, num_steps, every, weight_decay):
    """AdamW on the full data; the parameters after each `every` steps, stacked."""
    optimizer = optax.adamw(2e-3, b2=0.98, weight_decay=weight_decay)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss_of)(params, *data), state, params)
        return (optax.apply_updates(params, updates), state), None

    def block(carry, _):
        return jax.lax.scan(step, carry, None, every)[0], carry[0]

    start = (params, optimizer.init(params))
    return jax.jit(lambda: jax.lax.scan(block, start, None, num_steps // every + 1)[1])()


def draw(picture, trajectory, table):
    figure, (top, low) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    for name in ("training accuracy", "test accuracy"):
        top.plot(table["step"], table[name], "o-", markersize=3, label=name)
    top.set(ylabel="accuracy", title="Modular addition")
    top.legend()
    scale = trajectory.attrs["num_data"]
    left, _ = nllc.plots.plot_trajectory(
        trajectory.assign(center_loss=("checkpoint", table["training loss"] * scale)), axes=low
    )
    left.set(ylabel="training loss", yscale="log", xlabel="step of AdamW")
    figure.savefig(picture, dpi=100)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modulus", type=int, default=23)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--share", type=float, default=0.55, help="of the pairs, to train on")
    parser.add_argument("--weight-decay", type=float, default=1.0)
    parser.add_argument("--num-steps", type=int, default=9000)
    parser.add_argument("--every", type=int, default=1000, help="steps between checkpoints")
    parser.add_argument("--localization", type=float, default=100.0)
    parser.add_argument("--scale", type=float, default=0.1, help="of the noise of the likelihood")
    parser.add_argument("--num-warmup", type=int, default=3000)
    parser.add_argument("--relative-error", type=float, default=0.01)
    parser.add_argument("--picture", type=Path, default=Path("modular_addition.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    training, test = make_data(options.modulus, options.share)
    keys = jax.random.split(jax.random.key(0))
    shapes = {"embeddings": (2 * options.modulus, options.width)}
    shapes["readout"] = (options.width, options.modulus)
    start = {
        name: 0.5 * jax.random.normal(key, shape)
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }
    centers = train(start, training, options.num_steps, options.every, options.weight_decay)
    # The first points, of random weights, have a loss too large to speak of a minimum.
    centers = jax.tree.map(lambda leaf: leaf[1:], centers)
    steps = options.every * np.arange(1, len(centers["readout"]) + 1)
    model = nllc.network_model(network, start, scale=options.scale)
    trajectory = nllc.llc_trajectory(
        jax.random.key(0),
        nllc.localize(model, center=None, localization=options.localization),
        {"params": centers},
        training,
        steps=steps,
        kernel="sgnht",
        num_warmup=options.num_warmup,
        until={"relative_error": options.relative_error, "steps": 60_000},
        progress_bar=not options.no_progress_bar,
    )
    table = trajectory[["step", "llc", "mcse_mean", "r_hat", "status"]].to_dataframe()
    measures = {
        "training loss": (loss_of, training),
        "training accuracy": (accuracy, training),
        "test accuracy": (accuracy, test),
    }
    for name, (measure, data) in measures.items():
        table[name] = [float(v) for v in jax.vmap(lambda p, m=measure, d=data: m(p, *d))(centers)]
    print(table.round(4).to_string(index=False))
    draw(options.picture, trajectory, table)
    print(f"picture: {options.picture}")
    return trajectory, table


if __name__ == "__main__":
    main()
