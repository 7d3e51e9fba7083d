"""The command ``numpyro-llc``."""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from numpyro_llc.inference_data import InferenceData

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; `arguments` default to those of the process."""
    parser = argparse.ArgumentParser(
        prog="numpyro-llc", description="Local learning coefficients of NumPyro models."
    )
    release = f"numpyro-llc {version('numpyro_llc')}"
    parser.add_argument("--version", action="version", version=release)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_demo(commands)
    _add_calibrate(commands)
    _add_summary(commands)
    _add_diagnose(commands)
    _add_plot(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print(f"\nStopped. {options.stopped.format(**vars(options))}", file=sys.stderr)
        raise SystemExit(130) from None  # as of a process that Ctrl-C ends


def _add_demo(commands: Commands) -> None:
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
    demo.set_defaults(run=_demo, stopped="The models that were done are in {output}.")


def _add_calibrate(commands: Commands) -> None:
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
    stopped = "The rows that were done are in {output}; the same command goes on from there."
    command.set_defaults(run=_calibrate, refuse=command.error, stopped=stopped)


def _add_summary(commands: Commands) -> None:
    command = _add_reader(
        commands,
        "summary",
        "print λ̂ of a saved result, with its errors and convergence statistics",
    )
    command.add_argument(
        "--estimators", nargs="+", help="estimators of λ by name, a row each, or 'all'"
    )
    command.add_argument("--budget", action="store_true", help="add the other errors of λ̂")
    command.set_defaults(run=_summary)


def _add_diagnose(commands: Commands) -> None:
    command = _add_reader(
        commands, "diagnose", "print what is doubtful about a saved result, and what to do"
    )
    command.add_argument(
        "--all-checks", action="store_true", help="also list the checks that found nothing"
    )
    command.set_defaults(run=_diagnose)


def _add_plot(commands: Commands) -> None:
    command = _add_reader(commands, "plot", "draw the trace and the running mean of a saved result")
    command.add_argument(
        "--output", type=Path, help="picture to write; by default FILE with the suffix .png"
    )
    command.set_defaults(run=_plot)


def _add_reader(commands: Commands, name: str, does: str) -> argparse.ArgumentParser:
    """A command that reads one file."""
    command = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
    command.add_argument(
        "file", type=Path, metavar="FILE", help="netCDF, as idata.to_netcdf(FILE) writes it"
    )
    command.set_defaults(refuse=command.error, stopped="Nothing was written.")
    return command


@contextmanager
def _result(options: argparse.Namespace) -> "Iterator[InferenceData]":
    """The result in the file; what is wrong with it or with an option ends the command.

    Warnings go to the standard error as plain text.
    """
    from numpyro_llc.inference_data import read_netcdf

    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        try:
            yield read_netcdf(options.file)
        except (TypeError, ValueError) as error:
            options.refuse(str(error))
    for doubt in doubts:
        print(f"Warning: {doubt.message}", file=sys.stderr)


def _summary(options: argparse.Namespace) -> None:
    from numpyro_llc.results import summary

    names = options.estimators
    with _result(options) as idata:
        names = "all" if names == ["all"] else names
        table = summary(idata, estimators=names, budget=options.budget)
        print(table.to_string(float_format=lambda number: f"{number:.4g}"))


def _diagnose(options: argparse.Namespace) -> None:
    from numpyro_llc.results import diagnose

    with _result(options) as idata:
        table = diagnose(idata, all_checks=options.all_checks)
    for check, row in table.iterrows():
        print(f"{check}: {row['meaning']}" + (f"\n    {row['remedy']}" if row["found"] else ""))
    if not table["found"].any():
        print("No check found anything doubtful.")


def _plot(options: argparse.Namespace) -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    from numpyro_llc.plots import plot_trace

    picture = options.output or options.file.with_suffix(".png")
    if not picture.parent.is_dir():
        options.refuse(f"--output: there is no folder {picture.parent}")
    with _result(options) as idata:
        plot_trace(idata)[0].figure.savefig(picture, dpi=120)
    print(f"Picture: {picture.resolve()}")


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
