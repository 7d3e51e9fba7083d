"""The command ``numpyro-llc``."""

import argparse
import os
import sys
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
        help="show on real data what hidden units add to a network, and what BIC charges",
        description="Estimate λ̂ and the evidence of linear networks with 1 to 6 hidden units that "
        "predict the measurements of 150 irises from their species; print a table, save it (CSV) "
        "with the draws (netCDF) and a picture.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--output", type=Path, default=Path("llc-demo"), help="folder to write to")
    demo.add_argument("--seed", type=_seed, default=0, help="seed of all randomness")
    demo.add_argument("--num-warmup", type=int, default=200, help="warm-up steps of a chain")
    demo.add_argument("--num-samples", type=int, default=1000, help="draws of a chain")
    demo.add_argument("--no-progress-bar", action="store_true", help="print the table only")
    demo.set_defaults(run=_demo, stopped="The models that were done are in {}.")
    _add_calibrate(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print(f"\nStopped. {options.stopped.format(options.output)}", file=sys.stderr)
        raise SystemExit(130) from None  # as of a process that Ctrl-C ends


def _add_calibrate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "calibrate",
        help="estimate λ̂ of models whose answer is known",
        description="Run kernels over the zoo of models with a known λ̂; print a table of λ̂, its "
        "error and how far off it is, save it (CSV, netCDF) with a picture. The same command goes "
        "on where it was stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--output", type=Path, default=Path("llc-calibration"), help="folder")
    command.add_argument("--problems", nargs="+", help="names in the zoo; all by default")
    command.add_argument("--list", action="store_true", help="print the zoo and stop")
    command.add_argument(
        "--kernels", nargs="+", default=["nuts", "sgld", "psgld", "sgnht"], help="kernels to run"
    )
    command.add_argument("--num-data", type=int, default=1000, help="n")
    command.add_argument("--localization", type=float, default=1.0, help="γ")
    command.add_argument("--num-chains", type=int, default=4, help="chains of a run")
    command.add_argument("--seed", type=_seed, default=0, help="seed of all randomness")
    command.add_argument("--no-progress-bar", action="store_true", help="print the table only")
    stopped = "The rows that were done are in {}; the same command goes on from there."
    command.set_defaults(run=_calibrate, refuse=command.error, stopped=stopped)


def _seed(text: str) -> int:
    """An integer of 32 bits: JAX drops the others, or raises."""
    if not text.lstrip("+-").isdecimal() or not -(2**31) <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from -2**31 to 2**32 - 1; got {text}")
    return int(text)


def _calibrate(options: argparse.Namespace) -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    import jax

    from numpyro_llc.known import calibrate, zoo

    if options.list:
        print(zoo.table().to_string())
        return
    try:
        table = calibrate(
            jax.random.key(options.seed),
            options.problems,
            kernels=options.kernels,
            num_data=options.num_data,
            localization=options.localization,
            num_chains=options.num_chains,
            output=options.output,
            progress_bar=not options.no_progress_bar,
        )
    except (TypeError, ValueError) as error:  # of what was typed: failing runs are rows
        options.refuse(str(error))
    from numpyro_llc.plots import plot_calibration

    plot_calibration(table)[0].figure.savefig(options.output / "calibration.png", dpi=120)
    shown = table.drop(columns=["findings", "learning_coefficient"])
    print(shown.to_string(float_format=lambda number: f"{number:.4g}"))
    print(f"\nTable and picture: {options.output.resolve()}")


def _demo(options: argparse.Namespace) -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    from numpyro_llc.demo import run_demo, table_text

    table = run_demo(
        options.output,
        seed=options.seed,
        num_samples=options.num_samples,
        num_warmup=options.num_warmup,
        progress_bar=not options.no_progress_bar,
    )
    print("\nLinear networks from the species of 150 irises to four measurements:\n")
    print(table_text(table))
    print(
        "\nTwo hidden units fit as well as any number: further units add parameters (d/2), but no "
        "complexity (λ).\nBIC charges for the former, the evidence for the latter. All errors are "
        f"Monte Carlo errors.\nPicture, table and draws: {options.output.resolve()}/demo.png, "
        "table.csv, units_*.nc"
    )
