"""Induction heads form in a two-layer attention-only transformer: λ̂ along training, by both truths.

A sequence is a random segment, of a length of its own, written again and again. Its tokens are not
equally frequent, which the network learns first. The rest can be predicted from the context alone:
find the token at hand earlier in the sequence, and say what came after it. In two layers a
previous-token head and an induction head do this together (Elhage et al. 2021; Olsson et al. 2022),
and they form in a sudden drop of the loss on repeated tokens. In the picture, from above: the loss
of first and of repeated tokens, for each seed; λ̂ of the function that the network computes
(``truth="center"``); λ̂ by the data; and, at the end, λ̂ of each head and each layer alone, with the
rest held at the checkpoint (Wang et al. 2024).

A datum is a sequence: its loss is the sum over its tokens, and n is the number of sequences.

Run it with ``python examples/induction.py``: tens of minutes on two cores.
"""

import argparse
from dataclasses import replace
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
LAYERS = ("layer_0", "layer_1")


def network(params, tokens):
    """Logits ``[sequence, place, vocabulary]`` of the token after each of `tokens`."""
    length = tokens.shape[1]
    x = params["embedding"][tokens] + params["places"][:length]
    past = jnp.tril(jnp.ones((length, length), bool))
    heads = stacked(stacked(params[layer].values()) for layer in LAYERS)
    x, _ = jax.lax.scan(lambda x, own: (x + attention(own, normalized(x), past), None), x, heads)
    return normalized(x) @ params["readout"]


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def attention(heads, x, past):
    q, k, v = (jnp.einsum("ntd,hdk->nhtk", x, heads[name]) for name in ("q", "k", "v"))
    scores = jnp.einsum("nhtk,nhsk->nhts", q, k) / np.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(past, scores, -1e9))
    return jnp.einsum("nhtk,hkd->ntd", weights @ v, heads["o"])


def normalized(x):
    """Layer norm without parameters."""
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)


def initial(key, options):
    width, size = options.width, options.width // options.heads
    keys = iter(jax.random.split(key, 3 + 8 * options.heads))

    def normal(*shape):
        return jax.random.normal(next(keys), shape) / np.sqrt(shape[0])

    def head():
        return {name: normal(width, size) for name in "qkv"} | {"o": normal(size, width)}

    return {
        "embedding": jax.random.normal(next(keys), (options.vocabulary, width)),
        "places": jax.random.normal(next(keys), (options.length, width)),
        **{layer: {f"head_{k}": head() for k in range(options.heads)} for layer in LAYERS},
        "readout": normal(width, options.vocabulary),
    }


def make_tokens(key, count, options):
    """Sequences ``[count, length + 1]``, and which of their tokens have been there before."""
    one, two = jax.random.split(key)
    length = options.length + 1
    frequency = -jnp.log(jnp.arange(options.vocabulary) + 8.0)
    segments = jax.random.categorical(one, frequency, shape=(count, length))
    period = jax.random.randint(two, (count, 1), length // 4, length // 2)
    places = jnp.arange(length)
    # The first token of a repetition cannot be told from the context: the period is random.
    return jnp.take_along_axis(segments, places % period, axis=1), places > period


def losses(params, tokens):
    """Of each token but the first, in nats, ``[sequence, place]``."""
    logits = network(params, tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])


def train(options, seed, steps):
    """AdamW on fresh sequences; the parameters after each of `steps`, stacked."""
    optimizer = optax.adamw(optax.warmup_constant_schedule(0.0, options.rate, 50), weight_decay=0.1)

    @jax.jit
    def advance(params, state, begin, end):
        def step(i, carry):
            params, state = carry
            key = jax.random.fold_in(jax.random.key(seed), i)
            tokens, _ = make_tokens(key, options.train_batch, options)
            gradient = jax.grad(lambda params: losses(params, tokens).mean())(params)
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(begin, end, step, (params, state))

    params = initial(jax.random.key(seed), options)
    state, seen = optimizer.init(params), []
    for begin, end in zip([0, *steps[:-1]], steps, strict=True):
        params, state = advance(params, state, begin, end)
        seen.append(params)
    return stacked(seen)


def measures(centers, tokens, is_repeated):
    """Loss of a token, in nats, at each checkpoint: of those met first and of the repeated ones."""

    @jax.jit
    def both(params):
        loss, repeated = losses(params, tokens), is_repeated[:, 1:]
        return jnp.mean(loss, where=~repeated), jnp.mean(loss, where=repeated)

    return [np.asarray(x) for x in jax.lax.map(both, centers)]


def parts_of(options):
    """What is sampled at the end, by name: each layer, and each head."""
    parts = {}
    for layer in LAYERS:
        parts[layer] = f"params.{layer}"
        for k in range(options.heads):
            parts[f"{layer}.head_{k}"] = f"params.{layer}.head_{k}"
    return parts


def spread(tables):
    """Over the seeds, at each step: mean and standard deviation of losses and of λ̂."""
    rows = pd.concat(tables, keys=range(len(tables)), names=["seed"])
    names = ["first tokens", "repeated tokens", "llc", "llc_data"]
    return rows.groupby("step")[names].agg(["mean", "std"])


def draw(picture, tables, parts):
    figure, axes = plt.subplots(4, 1, figsize=(8, 11), layout="constrained")
    for seed, table in enumerate(tables):
        color, label = f"C{seed}", f"seed {seed}"
        axes[0].plot(table["step"], table["repeated tokens"], f"{color}o-", markersize=3)
        axes[0].plot(table["step"], table["first tokens"], f"{color}o:", markersize=3)
        for axis, name, error in (
            (axes[1], "llc", "mcse_mean"),
            (axes[2], "llc_data", "mcse_mean_data"),
        ):
            bars = 2.0 * table[error]
            axis.errorbar(
                table["step"], table[name], yerr=bars, fmt=f"{color}o-", markersize=3, label=label
            )
        x = np.arange(parts[seed].sizes["sites"]) + 0.15 * seed
        own = parts[seed]
        axes[3].errorbar(x, own["llc"], yerr=2.0 * own["mcse_mean"], fmt=f"{color}o", markersize=4)
    axes[0].set(ylabel="loss of a token [nats]", title="A transformer of two layers of attention")
    axes[0].text(0.02, 0.05, "full: repeated; dotted: first", transform=axes[0].transAxes)
    axes[1].set(ylabel="λ̂ by the centre")
    axes[1].legend()
    axes[2].set(ylabel="λ̂ by the data", xlabel="step of AdamW", yscale="symlog")
    axes[3].set(ylabel="λ̂ of a part, at the end")
    axes[3].set_xticks(x - 0.15 * seed, parts[0]["sites"].to_numpy(), rotation=15)
    for axis in axes[:3]:
        axis.set_xscale("log")
    figure.savefig(picture, dpi=80)


def one_seed(options, seed, steps, model, tokens, is_repeated):
    """A table of the checkpoints of one network, and λ̂ of the parts of the last one."""
    centers = train(options, seed, steps)
    local = nllc.localize(model, center=None, localization=options.localization)
    data = tokens[:, :-1], tokens[:, 1:]
    settings = {
        "kernel": "sgnht",
        "batch_size": options.batch_size,
        "num_warmup": options.num_warmup,
        "num_samples": options.num_samples,
        "progress_bar": not options.no_progress_bar,
    }
    trajectory = nllc.llc_trajectory(
        jax.random.key(seed),
        local,
        {"params": centers},
        data,
        steps=steps,
        truth=("data", "center"),
        **settings,
    )
    last = {"params": jax.tree.map(lambda leaf: leaf[-1], centers)}
    parts = nllc.refined_llc(
        jax.random.key(seed),
        replace(local, center=last, truth="center"),
        data,
        sites=parts_of(options),
        **settings,
    )
    columns = ["step", "llc", "mcse_mean", "r_hat", "localization_share", "status"]
    table = trajectory.sel(truth="center", drop=True)[columns].to_dataframe()
    by_data = trajectory.sel(truth="data", drop=True)[columns[1:]].to_dataframe()
    table = table.join(by_data, rsuffix="_data")
    table["first tokens"], table["repeated tokens"] = measures(centers, tokens, is_repeated)
    return table, parts.sel(data="sampled")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=64)
    parser.add_argument("--length", type=int, default=16, help="tokens of a sequence")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--heads", type=int, default=2, help="of a layer")
    parser.add_argument("--num-steps", type=int, default=1000, help="of AdamW")
    parser.add_argument("--first-step", type=int, default=118, help="of the first checkpoint")
    parser.add_argument("--num-checkpoints", type=int, default=6)
    parser.add_argument("--train-batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--num-data", type=int, default=512, help="sequences for λ̂")
    parser.add_argument("--localization", type=float, default=100.0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-warmup", type=int, default=300)
    parser.add_argument("--num-samples", type=int, default=400, help="of a chain")
    parser.add_argument("--seeds", type=int, default=3, help="networks to train")
    parser.add_argument("--picture", type=Path, default=Path("induction.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    span = options.first_step, options.num_steps, options.num_checkpoints
    steps = np.geomspace(*span).round().astype(int).tolist()
    tokens, is_repeated = make_tokens(jax.random.key(-1), options.num_data, options)
    model = nllc.network_model(network, initial(jax.random.key(0), options), "categorical")
    tables, parts = [], []
    for seed in range(options.seeds):
        table, own = one_seed(options, seed, steps, model, tokens, is_repeated)
        print(f"seed {seed}")
        print(table.round(3).to_string(index=False))
        print(
            own[["num_parameters", "llc", "mcse_mean", "r_hat", "status"]].to_dataframe().round(3)
        )
        tables.append(table)
        parts.append(own)
    print(spread(tables).round(2).to_string())
    draw(options.picture, tables, parts)
    print(f"picture: {options.picture}")
    return tables, parts


if __name__ == "__main__":
    main()
