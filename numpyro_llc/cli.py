"""The command ``numpyro-llc``."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; `arguments` default to those of the process."""
    parser = argparse.ArgumentParser(
        prog="numpyro-llc", description="Local learning coefficients of NumPyro models."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="estimate λ̂ of Gaussian mixtures of the galaxy velocities",
        description="Fit mixtures of 1 to 4 Gaussians to 82 galaxy velocities, estimate λ̂ at each "
        "best fit, print the table, save the traces (netCDF) and a picture of them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--output", type=Path, default=Path("llc-demo"), help="folder to write to")
    demo.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    demo.add_argument("--num-warmup", type=int, default=1000, help="warm-up steps of a chain")
    demo.add_argument("--num-samples", type=int, default=1000, help="draws of a chain")
    demo.add_argument("--no-progress-bar", action="store_true", help="print the table only")
    demo.set_defaults(run=_demo)
    options = parser.parse_args(arguments)
    options.run(options)


def _demo(options: argparse.Namespace) -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    from numpyro_llc.demo import run_demo

    table = run_demo(
        options.output,
        seed=options.seed,
        num_samples=options.num_samples,
        num_warmup=options.num_warmup,
        progress_bar=not options.no_progress_bar,
    )
    print("\nGaussian mixtures of 82 galaxy velocities, each at its maximum of the likelihood:\n")
    print(table.round(3).to_string())
    print(
        "\nλ̂ is `mean`, its Monte Carlo error `mcse_mean`; a regular model would have d/2."
        f"\nTraces: {options.output.resolve()}/mixture_*.nc"
        f"\nPicture: {options.output.resolve()}/traces.png"
    )
