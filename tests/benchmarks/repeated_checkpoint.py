"""Whether the errors of a trajectory cover: one checkpoint of a deep linear network, many times.

Run ``python tests/benchmarks/repeated_checkpoint.py`` (options: ``--help``): trains the network of
``examples/saddle_to_saddle.py`` to a plateau, gives that checkpoint again and again as `centers`,
by ``truth="center"``, and prints how λ̂ scatters against its stated errors. The spread over an error
that covers is 1, within ``1/sqrt(2 (repeats - 1))``.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

import numpyro_llc as nllc

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import saddle_to_saddle as example


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", type=int, default=3000, help="of gradient descent, on a plateau")
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--num-warmup", type=int, default=3000)
    parser.add_argument("--num-samples", type=int, nargs="+", default=[6000])
    options = parser.parse_args()
    x, y = example.make_data(1000)
    layers, _ = example.train(x, y, options.step, options.step)
    ranks, is_resting = example.ranks_of(layers)
    center = [layer[1] for layer in layers]
    print(f"rank {ranks[1]}, resting: {is_resting[1]}, λ = {example.known(ranks[1])}")
    local = nllc.localize(
        nllc.network_model(example.network, center, scale=0.1), center=None, truth="center"
    )
    print("  samples carried     λ̂ spread  by mcse_mean  by error  R-hat  reached")
    for num_samples in options.num_samples:
        for carried in (False, True):
            table = nllc.llc_trajectory(
                jax.random.key(1),
                local,
                [{"params": center}] * options.repeats,
                (x, y),
                kernel="sgnht",
                batch_size=100,
                num_warmup=options.num_warmup,
                num_samples=num_samples,
                warm_start=carried,
                progress_bar=False,
            )
            llc = table["llc"].to_numpy()
            spread = float(np.std(llc, ddof=1))
            by_mcse, by_error = (
                spread / np.sqrt(np.mean(table[name].to_numpy() ** 2))
                for name in ("mcse_mean", "error")
            )
            print(
                f"{num_samples:9d} {carried!s:7s} {llc.mean():6.2f} {spread:6.2f}  "
                f"{by_mcse:12.2f}  {by_error:8.2f}  {float(table['r_hat'].max()):5.3f}  "
                f"{float(table['reached'].mean()):7.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
