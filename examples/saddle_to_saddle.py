"""A deep linear network learns a map rank by rank: the loss falls in steps, λ̂ rises in steps.

Three layers of width 8 are trained by gradient descent from a small initialization, to a map of
singular values 4, 2, 1 and 1/2 (Saxe et al. 2014; Jacot et al. 2022). The loss rests near saddles
whose map has rank 0, 1, 2, ...

λ̂ is by both truths. A saddle is no minimum of the training loss: chains leave it downwards, and λ̂
by the data is, in the main, β n times the loss that they lose, far below zero (lower panel). With
``truth="center"`` the loss is measured against the map that the network has at the checkpoint, of
which every checkpoint is a minimum. That λ̂ rests near the true λ of a deep linear network of the
same rank (Aoyagi 2024, dotted), and rises where the loss falls (upper panel). At the end, at a
minimum, the two agree.

Run it with ``python examples/saddle_to_saddle.py``: some ten minutes on two cores.
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

import numpyro_llc as nllc

mpl.use("agg")
WIDTH, LAYERS = 8, 3
SINGULAR_VALUES = [4.0, 2.0, 1.0, 0.5]


def network(layers, x):
    for layer in layers:
        x = x @ layer.T
    return x


def make_data(num_data):
    """Inputs of second moment exactly the identity, and the outputs of the true map."""
    rng = np.random.default_rng(0)
    x = np.sqrt(num_data) * np.linalg.qr(rng.normal(size=(num_data, WIDTH)))[0]
    left, right = (np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] for _ in range(2))
    rank = len(SINGULAR_VALUES)
    true_map = left[:, :rank] * SINGULAR_VALUES @ right[:, :rank].T
    return x.astype(np.float32), (x @ true_map.T).astype(np.float32)


def train(x, y, num_steps, every):
    """Gradient descent; the layers after each `every` steps, stacked, from the first step on."""
    keys = jax.random.split(jax.random.key(1), LAYERS)
    layers = [0.02 * jax.random.normal(key, (WIDTH, WIDTH)) for key in keys]
    optimizer = optax.sgd(0.01)

    def loss(layers):
        return 0.5 * jnp.mean(jnp.sum((network(layers, x) - y) ** 2, axis=1))

    def step(carry, _):
        layers, state = carry
        updates, state = optimizer.update(jax.grad(loss)(layers), state)
        return (optax.apply_updates(layers, updates), state), None

    def block(carry, _):
        return jax.lax.scan(step, carry, None, every)[0], (carry[0], loss(carry[0]))

    start = (layers, optimizer.init(layers))
    return jax.jit(lambda: jax.lax.scan(block, start, None, num_steps // every + 1)[1])()


def ranks_of(layers):
    """Rank of each checkpoint's map, and whether it rests: no singular value is on the move."""
    maps = np.asarray(layers[2] @ layers[1] @ layers[0])
    values = np.linalg.svd(maps, compute_uv=False)[:, : len(SINGULAR_VALUES)]
    is_learned = values > 0.9 * np.array(SINGULAR_VALUES)
    is_asleep = values < 0.02 * np.array(SINGULAR_VALUES)
    return is_learned.sum(axis=1), (is_learned | is_asleep).all(axis=1)


def known(rank):
    """The learning coefficient of a network of this rank."""
    return float(nllc.exact.deep_linear_network((WIDTH,) * (LAYERS + 1), rank).value)


def plateaus(table):
    """Of the checkpoints that rest at each rank: the mean λ̂, its error, and the spread of a λ̂."""
    rows = table[table["plateau"]].groupby("rank")
    count = rows.size()
    by_rank = {
        "checkpoints": count,
        "llc": rows["llc"].mean(),
        "error": rows["error"].apply(lambda errors: np.sqrt(np.sum(errors**2))) / count,
        "spread": rows["llc"].std(),
        "error of one": rows["error"].mean(),
        "λ̂ from the data": rows["llc_data"].mean(),
        "λ": rows["λ"].first(),
    }
    return pd.DataFrame(by_rank)


def draw(picture, trajectory, ranks, loss):
    figure, (top, low) = plt.subplots(
        2, 1, figsize=(8, 7), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    own = trajectory.sel(truth="center")
    scaled = own.assign(center_loss=("checkpoint", loss * trajectory.attrs["num_data"]))
    left, right = nllc.plots.plot_trajectory(scaled, axes=top)
    left.set(yscale="log", ylim=(1e-3, None), xlabel="", ylabel="training loss, ½ squared error")
    top.figure.suptitle(f"Deep linear network, {LAYERS} layers of {WIDTH}")
    levels = {known(rank): f"{known(rank):g}: λ, rank {rank}" for rank in sorted(set(ranks))}
    for level in levels:
        right.axhline(level, color="0.4", linestyle=":", linewidth=1, zorder=0)
    right.set_yticks(list(levels), levels.values())
    right.set_ylabel("λ̂, truth at the centre")
    low.plot(trajectory["step"], trajectory["llc"].sel(truth="data"), "C3s-", linewidth=0.7)
    low.set_yscale("symlog", linthresh=10)
    low.set(xlabel="step of gradient descent", ylabel="λ̂ from the data")
    low.axhline(0, color="0.4", linewidth=0.5)
    figure.savefig(picture, dpi=90)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--num-steps", type=int, default=6300, help="of gradient descent")
    parser.add_argument("--every", type=int, default=300, help="steps between checkpoints")
    parser.add_argument("--num-warmup", type=int, default=3000)
    parser.add_argument("--num-samples", type=int, default=6000, help="of a chain")
    parser.add_argument("--localization", type=float, default=1.0)
    parser.add_argument("--picture", type=Path, default=Path("saddle_to_saddle.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    x, y = make_data(options.num_data)
    layers, loss = train(x, y, options.num_steps, options.every)
    model = nllc.network_model(network, [layer[0] for layer in layers], scale=0.1)
    trajectory = nllc.llc_trajectory(
        jax.random.key(0),
        nllc.localize(model, center=None, localization=options.localization),
        {"params": layers},
        (x, y),
        steps=options.every * np.arange(len(loss)),
        truth=("data", "center"),
        kernel="sgnht",
        batch_size=100,
        num_warmup=options.num_warmup,
        num_samples=options.num_samples,
        warm_start=False,  # rows that share no chains have independent errors
        progress_bar=not options.no_progress_bar,
    )
    ranks, is_resting = ranks_of(layers)
    own = trajectory.sel(truth="center", drop=True)
    table = own[["step", "llc", "mcse_mean", "error", "r_hat", "checks"]].to_dataframe()
    table["llc_data"] = trajectory["llc"].sel(truth="data").to_numpy()
    table = table.assign(training_loss=loss, rank=ranks, plateau=is_resting)
    table["λ"] = [known(rank) for rank in ranks]
    print(table.round(3).to_string(index=False))
    print(plateaus(table).round(3).to_string())
    draw(options.picture, trajectory, ranks[is_resting].tolist(), loss)
    print(f"picture: {options.picture}")
    return trajectory, table


if __name__ == "__main__":
    main()
