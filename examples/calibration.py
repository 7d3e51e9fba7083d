"""Kernels against the zoo: λ̂ beside its exact value, for every model where that is known."""

import argparse
from pathlib import Path

import jax
import matplotlib as mpl

import numpyro_llc as nllc

mpl.use("agg")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", help="names in the zoo; all with an exact value")
    parser.add_argument("--kernels", nargs="+", default=["nuts", "sgld", "sgnht"])
    parser.add_argument("--output", type=Path, default=Path("calibration"))
    parser.add_argument("--picture", type=Path, default=Path("calibration.png"))
    parser.add_argument("--no-progress-bar", action="store_true")
    options = parser.parse_args(arguments)
    zoo = nllc.zoo.table()
    table = nllc.calibrate(
        jax.random.key(0),
        options.problems or list(zoo.index[zoo["exact"]]),
        kernels=options.kernels,
        output=options.output,
        progress_bar=not options.no_progress_bar,
    )
    columns = ["exact", "llc", "mcse_mean", "z", "relative_error", "r_hat", "ess_bulk", "seconds"]
    print(table[columns].to_string(float_format=lambda number: f"{number:.4g}"))

    nllc.plots.plot_calibration(table)[0].figure.savefig(options.picture, dpi=80)


if __name__ == "__main__":
    main()
