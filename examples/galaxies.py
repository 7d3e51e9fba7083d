"""The demo as a script: λ̂ of Gaussian mixtures of the galaxies, and the picture in the docs."""

import argparse
from pathlib import Path

import matplotlib as mpl

from numpyro_llc.demo import run_demo

mpl.use("agg")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("llc-demo"))
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--num-warmup", type=int, default=1000)
    parser.add_argument("--picture", type=Path, default=Path("docs/demo.png"))
    options = parser.parse_args(arguments)
    table = run_demo(
        options.output,
        seed=0,
        num_samples=options.num_samples,
        num_warmup=options.num_warmup,
        progress_bar=False,
    )
    (options.output / "traces.png").replace(options.picture)
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
