"""Toy model of superposition: λ̂ along training runs that end at different k-gons.

Six features, one at a time, pass through two hidden units: ``relu(WᵀW x + b)`` is to give x back
(Elhage et al. 2022). What gradient descent finds are k-gons: k columns of W of one length at even
angles, the others zero (Chen et al. 2023, arXiv:2310.06301). A feature without a column has a
positive bias, its mean (k⁺), or a negative one, and is dead (k).

Two runs start near a triangle whose other features have positive biases, which is a saddle; one
near a pentagon whose sixth feature is dead; one near a hexagon. In the picture, the loss falls as
polygons are found, and λ̂ goes to half the rank of the Hessian there: of 18 parameters, 17 count at
5⁺ and 6 (the rotation does not), and 3 fewer at 5, whose dead feature does not matter. So λ is 8.5,
8.5 and 7. At a 4-gon the kinks of relu meet (columns at right angles, biases of zero), the Hessian
says nothing, and no value is drawn. Before a k-gon is reached the point is no minimum: chains walk
down from it, λ̂ from the data is far below zero, and the status says "doubtful". By
``truth="center"`` every checkpoint is a minimum, and λ̂ is that of the map at the checkpoint.

Run it with ``python examples/superposition.py``: a few minutes on two cores.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import numpyro_llc as nllc

mpl.use("agg")
FEATURES = 6
SCALE = 0.04


def autoencoder(params, x):
    return jax.nn.relu(x @ params["w"].T @ params["w"] + params["b"])


def loss_of(params, x):
    return 0.5 * jnp.mean(jnp.sum((autoencoder(params, x) - x) ** 2, axis=1))


def make_data(num_data):
    """Rows with one feature on, each as often, at even heights between 0 and 1."""
    row = np.arange(num_data)
    x = np.zeros((num_data, FEATURES), np.float32)
    x[row, row % FEATURES] = (row // FEATURES + 0.5) / np.ceil(num_data / FEATURES)
    return x


def near_polygon(rng_key, corners, bias):
    """A k-gon of unit length with noise, and this bias of the features without a column."""
    angle = 2 * jnp.pi * jnp.arange(corners) / corners
    w = 0.02 * jax.random.normal(rng_key, (2, FEATURES))
    w = w.at[:, :corners].add(jnp.stack([jnp.cos(angle), jnp.sin(angle)]))
    return {"w": w, "b": jnp.zeros(FEATURES).at[corners:].set(bias)}


def train(params, x, marks):
    """Gradient descent; the parameters at these steps, stacked."""
    optimizer = optax.sgd(0.5)

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss_of)(params, x), state)
        return optax.apply_updates(params, updates), state

    def block(carry, count):
        carry = jax.lax.fori_loop(0, count, step, carry)
        return carry, carry[0]

    start = (params, optimizer.init(params))
    return jax.lax.scan(block, start, jnp.diff(marks, prepend=0))[1]


def name_of(params):
    """As 5 or 5⁺: columns that are not zero, and the other features with a positive bias."""
    is_corner = np.linalg.norm(params["w"], axis=0) > 0.5
    return f"{is_corner.sum()}{'⁺' * int(np.sum(np.asarray(params['b'])[~is_corner] > 0))}-gon"


def half_rank(params, x):
    """Half the rank of the Hessian; None at a 4-gon, where the loss has no second derivative."""
    if name_of(params).startswith("4"):
        return None
    flat, unravel = ravel_pytree(params)
    values = np.linalg.eigvalsh(jax.hessian(lambda v: loss_of(unravel(v), x))(flat))
    return np.sum(values > 1e-3 * values[-1]) / 2


def draw_llc(axes, trajectory, runs, known):
    """λ̂ along each run, hollow where there are findings, and the known values."""
    for k, (_, rows) in enumerate(runs):
        own = trajectory.isel(checkpoint=rows)
        is_ok = (own["status"] == "ok").to_numpy()
        axes.plot(own["step"], own["llc"], f"C{k}", linewidth=0.7)
        for chosen, fill in ((is_ok, f"C{k}"), (~is_ok, "white")):
            axes.errorbar(
                own["step"][chosen],
                own["llc"][chosen],
                yerr=2 * own["mcse_mean"][chosen],
                fmt="o",
                color=f"C{k}",
                markerfacecolor=fill,
                markersize=4,
            )
    for value in sorted({value for value in known.values() if value is not None}):
        names = ", ".join(name for name in known if known[name] == value)
        axes.axhline(value, color="0.4", linestyle=":")
        label = f" λ = {value:g}:\n {names}"
        axes.text(1.0, value, label, va="center", transform=axes.get_yaxis_transform())


def draw(picture, trajectory, runs, losses, known):
    figure, (top, middle, low) = plt.subplots(
        3, 1, figsize=(8, 9), sharex=True, height_ratios=(1, 1, 2), layout="constrained"
    )
    for k, (name, rows) in enumerate(runs):
        top.plot(trajectory["step"][rows], losses[rows], f"C{k}", label=f"to the {name}")
    top.set(ylabel="loss per datum", title="Toy model of superposition, 6 features in 2 units")
    top.legend()
    draw_llc(middle, trajectory.sel(truth="data"), runs, {})
    middle.set_yscale("symlog", linthresh=10)
    middle.set(ylabel="λ̂ from the data")
    draw_llc(low, trajectory.sel(truth="center"), runs, known)
    low.set(xlabel="step of gradient descent", ylabel="λ̂, truth at the centre", xscale="log")
    low.set_title("± 2 errors; hollow: with findings", fontsize="medium")
    figure.savefig(picture, dpi=90)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=2400)
    parser.add_argument("--num-steps", type=int, default=30_000, help="of gradient descent")
    parser.add_argument("--num-checkpoints", type=int, default=6)
    parser.add_argument("--num-warmup", type=int, default=3000)
    parser.add_argument("--relative-error", type=float, default=0.01)
    parser.add_argument("--localization", type=float, default=100.0)
    parser.add_argument("--picture", type=Path, default=Path("superposition.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    x = make_data(options.num_data)
    unused = 1 / (2 * FEATURES)  # the bias that fits a feature without a column: its mean
    keys = jax.random.split(jax.random.key(0), 12)[:4]
    corners_and_biases = [(3, unused), (3, unused), (5, -1.0), (6, 0.0)]
    starts = [
        near_polygon(key, *start) for key, start in zip(keys, corners_and_biases, strict=True)
    ]
    marks = np.unique(np.geomspace(10, options.num_steps, options.num_checkpoints).astype(int))
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    trained = jax.jit(jax.vmap(train, in_axes=(0, None, None)))(stack, x, marks)
    centers = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), trained)

    model = nllc.network_model(autoencoder, starts[0], scale=SCALE)
    trajectory = nllc.llc_trajectory(
        jax.random.key(0),
        nllc.localize(model, center=None, localization=options.localization),
        {"params": centers},
        (x, x),
        steps=np.tile(marks, len(starts)),
        truth=("data", "center"),
        kernel="sgnht",
        num_warmup=options.num_warmup,
        until={"relative_error": options.relative_error, "steps": 20_000},
        warm_start=False,  # one run's end says nothing of the next one's start
        progress_bar=not options.no_progress_bar,
    )
    losses = np.asarray(jax.vmap(loss_of, in_axes=(0, None))(centers, x))
    runs, known = [], {}
    for k in range(len(starts)):
        end = jax.tree.map(lambda leaf, k=k: np.asarray(leaf)[k, -1], trained)
        runs.append((name_of(end), slice(k * len(marks), (k + 1) * len(marks))))
        known[name_of(end)] = half_rank(end, x)
    columns = ["step", "llc", "mcse_mean", "r_hat", "status"]
    table = trajectory[columns].sel(truth="data", drop=True).to_dataframe()
    for name in ("llc", "mcse_mean", "r_hat", "status"):
        table[f"{name} by the centre"] = trajectory[name].sel(truth="center").to_numpy()
    table["loss"] = losses
    table["run"] = [name for name, _ in runs for _ in marks]
    table["known λ of its end"] = table["run"].map(known)
    print(table.round(4).to_string(index=False))
    draw(options.picture, trajectory, runs, losses, known)
    print(f"picture: {options.picture}")
    return trajectory, table


if __name__ == "__main__":
    main()
