"""λ̂ of a two-layer perceptron of 10⁵ parameters on scikit-learn's digits, by kernel.

Run ``python tests/benchmarks/digits.py --kernel sgld`` (options: ``--help``): trains with Adam,
then samples with batches of 256 and 4 chains until λ̂ is known to 5 % with an R-hat below 1.02, and
prints how long that took.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import numpyro_llc as nllc

HIDDEN = 1333


def apply(params, x):
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def digits():
    images, labels = load_digits(return_X_y=True)
    return (images / 16.0).astype(np.float32), labels


def initial(hidden, seed=0):
    rng = np.random.default_rng(seed)
    params = {
        "w1": rng.normal(size=(64, hidden)) / 8.0,
        "b1": np.zeros(hidden),
        "w2": rng.normal(size=(hidden, 10)) / np.sqrt(hidden),
        "b2": np.zeros(10),
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def trained(apply, params, x, y, steps, batch_size, seed=0):
    """Parameters after as many steps of Adam."""
    x, y, optimizer = jnp.asarray(x), jnp.asarray(y), optax.adam(1e-3)

    def loss(params, rows):
        logits = apply(params, x[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    @jax.jit
    def train(params):
        def one(i, carried):
            params, state = carried
            rows = jax.random.randint(
                jax.random.fold_in(jax.random.key(seed), i), (batch_size,), 0, len(x)
            )
            updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, steps, one, (params, optimizer.init(params)))[0]

    return train(params)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", nargs="+", default=["sgld", "psgld", "sgnht"])
    parser.add_argument("--training-steps", type=int, default=2000)
    parser.add_argument("--localization", type=float, default=100.0)
    parser.add_argument("--relative-error", type=float, default=0.05)
    options = parser.parse_args()
    x, y = digits()
    params = trained(apply, initial(HIDDEN), x, y, options.training_steps, batch_size=256)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    accuracy = float(jnp.mean(jnp.argmax(apply(params, x), axis=1) == y))
    print(f"{size} parameters, n = {len(x)}, accuracy {100 * accuracy:.1f} % in training")
    model = nllc.network_model(apply, params, "categorical")
    for kernel in options.kernel:
        began = time.perf_counter()
        idata = nllc.estimate_llc(
            jax.random.key(0),
            model,
            (x, y),
            center={"params": params},
            kernel=kernel,
            batch_size=256,
            localization=options.localization,
            until={"relative_error": options.relative_error, "r_hat": 1.02},
            progress_bar=False,
        )
        row, attrs = nllc.summary(idata).loc["llc"], idata["posterior"].attrs
        print(
            f"{kernel:6s} λ̂ {row['mean']:.4g} ± {row['mcse_mean']:.2g} "
            f"({100 * row['mcse_mean'] / row['mean']:.1f} %), R-hat {row['r_hat']:.4f}, ESS "
            f"{row['ess_bulk']:.0f}, {attrs['num_steps']} steps, ended by {attrs['ended_by']}, "
            f"{time.perf_counter() - began:.0f} s with compilation",
            flush=True,
        )


if __name__ == "__main__":
    main()
