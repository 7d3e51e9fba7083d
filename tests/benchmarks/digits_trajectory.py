"""λ̂ of a small network on scikit-learn's digits at ten checkpoints, by both truths.

Run ``python tests/benchmarks/digits_trajectory.py`` (options: ``--help``): trains a tanh network
with 32 hidden units, chooses γ at the last checkpoint, and prints a table of the trajectory and of
what changes along it. ``--picture`` draws it.
"""

import argparse
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from digits import digits, initial, trained
from localization import apply

import numpyro_llc as nllc

STEPS = [10, 30, 60, 100, 200, 400, 700, 1200, 2000, 3000]
GRID = [1.0, 3.0, 10.0, 30.0]


def chosen_gamma(model, data, center, lengths):
    """One γ for the run, by its last checkpoint."""
    return nllc.choose_localization(
        jax.random.key(0),
        nllc.localize(model, center=center, truth="center"),
        data,
        localization=GRID,
        kernel="sgnht",
        batch_size=128,
        **lengths,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-warmup", type=int, default=700)
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--localization", type=float, help="γ; left out, it is chosen")
    parser.add_argument("--picture", type=Path, help="a file to draw the trajectory to")
    options = parser.parse_args()
    warnings.simplefilter("ignore", nllc.LLCWarning)
    x, y = digits()
    start = initial(32)
    centers = [{"params": trained(apply, start, x, y, step, batch_size=64)} for step in STEPS]
    model = nllc.network_model(apply, start, "categorical")
    lengths = {
        "num_warmup": options.num_warmup,
        "num_samples": options.num_samples,
        "progress_bar": False,
    }
    began, gamma = time.perf_counter(), options.localization
    if gamma is None:
        choice = chosen_gamma(model, (x, y), centers[-1], lengths)
        gamma = choice.localization
        print(choice.reason)
    trajectory = nllc.llc_trajectory(
        jax.random.key(1),
        nllc.localize(model, center=None, localization=gamma),
        centers,
        (x, y),
        steps=STEPS,
        truth=("data", "center"),
        kernel="sgnht",
        batch_size=128,
        **lengths,
    )
    columns = ["step", "llc", "mcse_mean", "r_hat", "localization_share", "reached", "status"]
    for truth in ("center", "data"):
        rows = trajectory.sel(truth=truth)
        loss = rows["center_loss"].to_numpy() / len(x)
        print(f"truth={truth!r}")
        print(rows[columns].to_dataframe()[columns].assign(loss=loss).round(3).to_string())
        for row in rows.isel(checkpoint=np.flatnonzero(rows["status"] != "ok"))["findings"]:
            print("  ", str(row.values)[:300])
    print(nllc.llc_changes(trajectory.sel(truth="center")).round(3).to_string())
    print(f"{time.perf_counter() - began:.0f} s with compilation")
    if options.picture is not None:
        axes = nllc.plots.plot_trajectory(trajectory)
        axes[0].set(xscale="log")
        axes[0].figure.savefig(options.picture, dpi=90)


if __name__ == "__main__":
    main()
