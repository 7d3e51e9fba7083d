"""Induction heads form in a two-layer attention-only transformer: λ̂ along training, by both truths.

A sequence consists of words of two tokens. Each sequence has a vocabulary of its own, of a few
words, which come in random order. Once a word has been seen, its second token can be predicted from
the context alone: find the first token earlier in the sequence, and say what came after it. In two
layers, a previous-token head and an induction head do this together (Elhage et al. 2021; Olsson et
al. 2022). Before they form, the network can only guess among the tokens of the context: the loss of
repeated tokens rests on a shoulder, and then falls.

The picture shows, from above, the loss of first and repeated tokens for each seed; how much the two
kinds of heads attend to what they are named after; λ̂ of the function that the network computes
(``truth="center"``); and, for the first seed, λ̂ by the data, and λ̂ of each layer and each head at
the end, with the rest held at the checkpoint (Wang et al. 2024).

A datum is a sequence: its loss is the sum over its tokens, and n is the number of sequences.

Run it with ``python examples/induction.py``: some twenty minutes on two cores.
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
NUM_LAYERS = 2
COLUMNS = ["step", "llc", "mcse_mean", "r_hat", "reached", "localization_share", "status"]
MEASURES = ["first tokens", "repeated tokens", "previous-token score", "induction score"]
WORD = 2
"""Tokens of a word."""


def transformer(params, tokens):
    """Logits of the next token ``[sequence, place, vocabulary]``, and the attention of each head.

    Attention is ``[layer, sequence, head, place, place attended to]``.
    """
    length = tokens.shape[1]
    past = jnp.tril(jnp.ones((length, length), bool))

    def layer(x, heads):
        added, weights = attention(heads, normalized(x), past)
        return x + added, weights

    x = params["embedding"][tokens] + params["places"]
    x, weights = jax.lax.scan(layer, x, params["heads"])
    return normalized(x) @ params["readout"], weights


def attention(heads, x, past):
    q, k, v = (jnp.einsum("ntd,hdk->nhtk", x, heads[name]) for name in "qkv")
    scores = jnp.einsum("nhtk,nhsk->nhts", q, k) / np.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(past, scores, -1e9))
    return jnp.einsum("nhtk,hkd->ntd", weights @ v, heads["o"]), weights


def normalized(x):
    """Layer norm without parameters."""
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)


def network(params, tokens):
    return transformer(params, tokens)[0]


def initial(key, options):
    """Parameters; each matrix of all heads and layers is one array, which compiles fast."""
    width, size = options.width, options.width // options.heads
    keys = iter(jax.random.split(key, 7))

    def normal(*shape):
        return jax.random.normal(next(keys), shape) / np.sqrt(shape[-2])

    stack = NUM_LAYERS, options.heads
    return {
        "embedding": jax.random.normal(next(keys), (options.vocabulary, width)),
        "places": jax.random.normal(next(keys), (options.length, width)),
        "heads": {
            **{name: normal(*stack, width, size) for name in "qkv"},
            "o": normal(*stack, size, width),
        },
        "readout": normal(width, options.vocabulary),
    }


def make_tokens(key, count, options):
    """Sequences ``[count, length + 1]``, and the word that each token belongs to, likewise."""
    one, two = jax.random.split(key)
    length = options.length + 1
    words = jax.random.randint(one, (count, options.words, WORD), 0, options.vocabulary)
    order = jax.random.randint(two, (count, -(-length // WORD)), 0, options.words)
    tokens = jnp.take_along_axis(words, order[:, :, None], axis=1).reshape(count, -1)
    return tokens[:, :length], jnp.repeat(order, WORD, axis=1)[:, :length]


def token_losses(logits, tokens):
    """Of each token but the first, in nats, ``[sequence, place]``."""
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

            def loss(params):
                return token_losses(network(params, tokens[:, :-1]), tokens).mean()

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(begin, end, step, (params, state))

    params = initial(jax.random.key(seed), options)
    state, seen = optimizer.init(params), []
    for begin, end in zip([0, *steps[:-1]], steps, strict=True):
        params, state = advance(params, state, begin, end)
        seen.append(params)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)


def measures(centers, tokens, words):
    """At each checkpoint, of words whose second token is to be predicted: losses, and scores.

    The losses of a token, in nats, are those of words that are new and of those seen before. The
    scores are of the best head of a layer: its mean attention in the first layer, at second tokens,
    on the first; in the second layer, at the first token of a repeated word, on its second tokens.
    """
    place = jnp.arange(tokens.shape[1] - 1)
    word, is_first = words[:, :-1], place % WORD == 0
    is_past = place[:, None] // WORD > place // WORD
    same = (word[:, :, None] == word[:, None, :]) & is_past  # [sequence, place, earlier place]
    is_repeated = is_first & same.any(axis=2)
    is_new, answer = is_first & ~is_repeated, same & ~is_first

    def best(attended, counts):
        return jnp.max(jnp.mean(attended, axis=(0, 2), where=counts))

    @jax.jit
    def at(params):
        logits, weights = transformer(params, tokens[:, :-1])
        loss = token_losses(logits, tokens)
        previous = jnp.pad(jnp.diagonal(weights[0], -1, 2, 3), ((0, 0), (0, 0), (1, 0)))
        induced = jnp.sum(weights[1], axis=3, where=answer[:, None])
        return (
            jnp.mean(loss, where=is_new),
            jnp.mean(loss, where=is_repeated),
            best(previous, ~is_first),
            best(induced, is_repeated[:, None]),
        )

    found = jax.lax.map(at, centers)
    return pd.DataFrame(dict(zip(MEASURES, map(np.asarray, found), strict=True)))


def parts_of(center):
    """Masks of what is sampled at the end: each layer, and each head. Alike parts compile once."""
    none = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), center)

    def mask(*place):
        def marked(leaf):
            leaf = leaf.copy()
            leaf[place] = True
            return leaf

        return {"params": {**none, "heads": jax.tree.map(marked, none["heads"])}}

    layers = {f"layer {k}": mask(k) for k in range(NUM_LAYERS)}
    heads = {
        f"head {k}.{h}": mask(k, h)
        for k in range(NUM_LAYERS)
        for h in range(center["heads"]["q"].shape[1])
    }
    return layers | heads


def spread(tables):
    """Over the seeds, at each step: mean and standard deviation."""
    rows = pd.concat(tables, keys=range(len(tables)), names=["seed"])
    return rows.groupby("step")[[*MEASURES, "llc"]].agg(["mean", "std"])


def draw(picture, curves, tables, by_data, parts):
    figure, axes = plt.subplots(5, 1, figsize=(8, 12), layout="constrained")
    loss, score, by_center, low, refined = axes
    for seed, (curve, table) in enumerate(zip(curves, tables, strict=True)):
        color = f"C{seed}"
        for axis, (dotted, full) in ((loss, MEASURES[:2]), (score, MEASURES[2:])):
            axis.plot(curve["step"], curve[dotted], f"{color}:")
            axis.plot(curve["step"], curve[full], f"{color}-", label=f"seed {seed}")
        bars = 2.0 * table["mcse_mean"]
        by_center.errorbar(table["step"], table["llc"], yerr=bars, fmt=f"{color}o-")
    low.errorbar(by_data["step"], by_data["llc"], yerr=2.0 * by_data["mcse_mean"], fmt="C0s-")
    refined.errorbar(parts["sites"], parts["llc"], yerr=2.0 * parts["mcse_mean"], fmt="C0o")
    loss.set(ylabel="loss of a token [nats]", title="Two layers of attention find induction")
    loss.legend(title="full: repeated words, dotted: new")
    score.set(ylabel="attention of the best head")
    score.legend([], title="full: induction, dotted: previous token", loc="lower right")
    by_center.set(ylabel="λ̂, truth at the centre")
    low.set(ylabel="λ̂ by the data, seed 0", xlabel="step of AdamW")
    refined.set(ylabel="λ̂ of a part, seed 0")
    for axis in axes[:4]:
        axis.set_xlim(0, 1.02 * curves[0]["step"].max())
    figure.savefig(picture, dpi=80)


def sample(options, paths, curves, model, data):
    """λ̂ of each network at its checkpoints; of the first also by the data, and of its parts."""
    settings = {
        "kernel": "sgnht",
        "batch_size": options.batch_size,
        "num_warmup": options.num_warmup,
        "num_samples": options.num_samples,
        "thinning": options.thinning,
        "progress_bar": not options.no_progress_bar,
    }
    key = jax.random.key(0)
    local = nllc.localize(model, center=None, localization=options.localization)
    chosen = np.array(options.steps) // options.every - 1
    centers = [jax.tree.map(lambda leaf: leaf[chosen], path) for path in paths]

    def along(own, truth):
        localized = replace(local, truth=truth)
        found = nllc.llc_trajectory(
            key, localized, {"params": own}, data, steps=options.steps, **settings
        )
        return found[COLUMNS].to_dataframe()

    tables = [
        along(own, "center").merge(curve, on="step")
        for own, curve in zip(centers, curves, strict=True)
    ]
    by_data = along(centers[0], "data")
    last = jax.tree.map(lambda leaf: leaf[-1], centers[0])
    at_end = replace(local, center={"params": last}, truth="center")
    parts = nllc.refined_llc(key, at_end, data, sites=parts_of(last), **settings)
    return tables, by_data, parts.sel(data="sampled", drop=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=32)
    parser.add_argument("--words", type=int, default=3, help="of a sequence's vocabulary")
    parser.add_argument("--length", type=int, default=12, help="tokens of a sequence")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--heads", type=int, default=2, help="of a layer")
    steps = [200, 500, 800, 1200]
    parser.add_argument("--steps", type=int, nargs="+", default=steps, help="of checkpoints")
    parser.add_argument("--every", type=int, default=25, help="steps between losses")
    parser.add_argument("--train-batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--num-data", type=int, default=256, help="sequences for λ̂")
    parser.add_argument("--localization", type=float, default=30.0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-warmup", type=int, default=300)
    parser.add_argument("--num-samples", type=int, default=700, help="steps of a chain")
    parser.add_argument("--thinning", type=int, default=5, help="steps from draw to draw")
    parser.add_argument("--seeds", type=int, default=3, help="networks to train")
    parser.add_argument("--picture", type=Path, default=Path("induction.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)

    if any(step % options.every for step in options.steps):
        parser.error("--steps must be multiples of --every")
    tokens, words = make_tokens(jax.random.key(-1), options.num_data, options)
    model = nllc.network_model(network, initial(jax.random.key(0), options), "categorical")
    recorded = list(range(options.every, max(options.steps) + 1, options.every))
    paths = [train(options, seed, recorded) for seed in range(options.seeds)]
    curves = [measures(path, tokens, words).assign(step=recorded) for path in paths]
    data = tokens[:, :-1], tokens[:, 1:]
    tables, by_data, parts = sample(options, paths, curves, model, data)
    for name, table in [*enumerate(tables), ("0, by the data", by_data)]:
        print(f"seed {name}")
        print(table.round(3).to_string(index=False))
    print(parts[["num_parameters", "llc", "mcse_mean", "r_hat", "status"]].to_dataframe())
    print(spread(tables).round(2).to_string())
    draw(options.picture, curves, tables, by_data, parts)
    print(f"picture: {options.picture}")
    return tables, by_data, parts


if __name__ == "__main__":
    main()
