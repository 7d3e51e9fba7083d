"""λ̂ of random deep linear networks against λ, nothing tuned.

Run ``python tests/benchmarks/deep_linear_networks.py --size 1K --count 30 --output folder``
(options: ``--help``); a second call goes on where the first stopped.

The networks are those of the published comparison (Lau, Furman, Wang, Murfet & Wei 2023): layers
and widths uniform in the ranges of each class, rank uniform. At aligned points the formula of
Aoyagi (2024) is the local λ; with ``--unaligned`` layers keep larger ranks, as the published
points did, and the local λ, where known, is compared beside the global one.
"""

import argparse
from pathlib import Path

import jax

import numpyro_llc as nllc

CLASSES = {
    "1K": {"layers": (2, 5), "widths": (5, 50), "num_data": 100_000},
    "10K": {"layers": (2, 10), "widths": (5, 100), "num_data": 100_000},
    "100K": {"layers": (2, 10), "widths": (50, 500), "num_data": 1_000_000},
}


SINGLE = {"1M": (500, 50), "10M": (1581, 158)}
"""Width and rank of one network of four layers."""


def single(width, rank):
    return [nllc.zoo.deep_linear_network((width,) * 5, rank, num_data=1_000_000, seed=0)]


def report(table):
    """Errors against λ at the point, over all networks."""
    error = table["llc"] / table["learning_coefficient"] - 1
    print(
        table[["parameters", "learning_coefficient", "llc", "mcse_mean", "r_hat", "seconds"]]
        .assign(percent=100 * error, failure=table["failure"].str[:40])
        .to_string(float_format=lambda number: f"{number:.4g}")
    )
    known = error.dropna()
    if not len(known):
        return
    size = known.abs()
    order = table.loc[known.index, ["llc", "learning_coefficient"]].corr("spearman").iloc[0, 1]
    print(
        f"\n{len(table)} networks, {table['llc'].isna().sum()} without an estimate, {len(known)} "
        f"with a known λ: median error {100 * known.median():+.2f} %, median size "
        f"{100 * size.median():.2f} %, within 10 %: {100 * (size < 0.1).mean():.0f} %, largest "
        f"{100 * size.max():.1f} %, Spearman {order:.4f}; {table['seconds'].median():.0f} s each"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=[*CLASSES, *SINGLE], default="1K")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kernel", default="sgnht")
    parser.add_argument("--unaligned", action="store_true")
    parser.add_argument("--warmup", type=int, help="steps; left out, as many as it takes")
    parser.add_argument("--seconds", type=float, help="of sampling, in place of the default budget")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.size in SINGLE:
        problems = single(*SINGLE[options.size])
    else:
        settings = CLASSES[options.size]
        problems = list(
            nllc.zoo.random_deep_linear_networks(
                options.seed, options.count, aligned=not options.unaligned, **settings
            )
        )
    table = nllc.calibrate(
        jax.random.key(options.seed),
        problems,
        kernels=[options.kernel],
        reference=None,
        output=options.output,
        num_warmup=options.warmup,
        until=None if options.seconds is None else {"seconds": options.seconds},
    )
    report(table)


if __name__ == "__main__":
    main()
