"""A deep linear network learns a map rank by rank: the loss falls in steps, λ̂ rises in steps.

Three layers of width 8 are trained by gradient descent from a small initialization, to a map of
singular values 4, 2, 1 and 1/2 (Saxe et al. 2014; Jacot et al. 2022). In the picture, the loss
rests near saddles whose map has rank 0, 1, 2, ...; λ̂ rests near the true λ of a deep linear
network of that rank (Aoyagi 2024, dotted), and rises at the falls of the loss.

A saddle is no minimum of the loss, so λ is not defined for the loss of training there. Therefore
λ̂ is of the map that the network has at a checkpoint: its own outputs, noise-free, are the data, of
which every checkpoint is a minimum. The lowest panel shows what comes of the data of training
instead: chains leave a saddle downwards and λ̂ is, in the main, β n times the loss they lose. It is
negative by orders of magnitude, and only at the end, at a minimum, the two agree.

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

import numpyro_llc as nllc

mpl.use("agg")
WIDTH, LAYERS = 8, 3
SINGULAR_VALUES = [4.0, 2.0, 1.0, 0.5]


def network(layers, x):
    for layer in layers:
        x = x @ layer.T
    return x


def against_teacher(params, x):
    """Zero where the student does what the teacher does, whose parameters are held."""
    return network(params["student"], x) - network(params["teacher"], x)


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


def draw(picture, own, on_data, ranks, loss):
    figure, (top, low) = plt.subplots(
        2, 1, figsize=(8, 7), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    scaled = own.assign(center_loss=("checkpoint", loss * own.attrs["num_data"]))
    left, right = nllc.plots.plot_trajectory(scaled, axes=top)
    left.set(yscale="log", ylim=(1e-3, None), xlabel="", ylabel="training loss, ½ squared error")
    left.set_title(f"Deep linear network, {LAYERS} layers of {WIDTH}")
    for rank in sorted(set(ranks)):
        right.axhline(known(rank), color="0.4", linestyle=":")
        right.text(0, known(rank), f"λ = {known(rank):g}, rank {rank}", va="bottom")
    right.get_legend().set_loc("lower right")
    low.plot(on_data["step"], on_data["llc"], "C3s")
    low.set_yscale("symlog", linthresh=10)
    low.set(xlabel="step of gradient descent", ylabel="λ̂ on the training data")
    low.axhline(0, color="0.4", linewidth=0.5)
    figure.savefig(picture, dpi=100)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--num-steps", type=int, default=7500, help="of gradient descent")
    parser.add_argument("--every", type=int, default=300, help="steps between checkpoints")
    parser.add_argument("--num-warmup", type=int, default=5000)
    parser.add_argument("--relative-error", type=float, default=0.01)
    parser.add_argument("--max-steps", type=int, default=60_000, help="of a chain")
    parser.add_argument("--localization", type=float, default=1.0)
    parser.add_argument("--picture", type=Path, default=Path("saddle_to_saddle.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    x, y = make_data(options.num_data)
    layers, loss = train(x, y, options.num_steps, options.every)
    steps = options.every * np.arange(len(loss))
    settings = {
        "kernel": "sgnht",
        "batch_size": 100,
        "until": {"relative_error": options.relative_error, "steps": options.max_steps},
        "num_warmup": options.num_warmup,
        "progress_bar": not options.no_progress_bar,
    }
    both = {"student": layers, "teacher": layers}
    first = jax.tree.map(lambda leaf: leaf[0], both)
    own = nllc.llc_trajectory(
        jax.random.key(0),
        nllc.localize(
            nllc.network_model(against_teacher, first, scale=0.1),
            center=None,
            localization=options.localization,
            sites="params.student",
        ),
        {"params": both},
        (x, np.zeros_like(y)),
        steps=steps,
        **settings,
    )
    ranks, is_resting = ranks_of(layers)
    # Of each plateau the middle, on the data of training.
    rests = [np.flatnonzero(is_resting & (ranks == rank)) for rank in np.unique(ranks)]
    middles = [int(rest[len(rest) // 2]) for rest in rests if len(rest)]
    on_data = nllc.llc_trajectory(
        jax.random.key(0),
        nllc.localize(
            nllc.network_model(network, first["student"], scale=0.1),
            center=None,
            localization=options.localization,
        ),
        {"params": [leaf[np.array(middles)] for leaf in layers]},
        (x, y),
        steps=steps[middles],
        **settings,
    )
    table = own[["llc", "mcse_mean", "r_hat", "status"]].to_dataframe()
    table = table.assign(training_loss=loss, rank=ranks, plateau=is_resting)
    table["λ"] = [known(rank) for rank in ranks]
    print(table.round(3).to_string(index=False))
    print("On the data of training:")
    rows = on_data[["step", "llc", "mcse_mean", "status"]].to_dataframe()
    print(rows.round(3).to_string(index=False))
    draw(options.picture, own, on_data, ranks[is_resting].tolist(), loss)
    print(f"picture: {options.picture}")
    return own, on_data, table


if __name__ == "__main__":
    main()
