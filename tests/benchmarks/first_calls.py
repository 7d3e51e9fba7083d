"""Seconds of the first and of the second call in a fresh process: what compilation costs.

Run ``python tests/benchmarks/first_calls.py`` (options: ``--help``) on an idle machine. It takes
some minutes. Each measurement is a process of its own, without JAX's persistent cache: it calls a
function twice, with two keys. With several folders, each a checkout of the repository, they take
turns, and the table has columns for each: ``first_calls.py OLD NEW`` tells what a change saves.

Prints a table in Markdown: medians of wall time of both calls, and CPU seconds of the first. The
demo is one process, ``python -m numpyro_llc demo``, imports included.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CALLS = ("find_center", "nuts", "sgnht", "sgld")
MODELS = ("regression", "tutorial")
DEMO = "demo"
BATCH_SIZE = 32


def problem(name):
    """A model and its data: three coefficients and 100 data, or the tutorial's network."""
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    def regression(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    def tutorial(x, y):
        a = numpyro.sample("a", dist.Normal(0, 10))
        b = numpyro.sample("b", dist.Normal(0, 10))
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("y", dist.Normal(a * jnp.tanh(b * x), 1.0), obs=y)

    rng = np.random.default_rng(0)
    if name == "regression":
        x = rng.normal(size=(100, 3))
        y = x.sum(axis=1) + rng.normal(size=100)
        return regression, (x, y), {"w": np.linalg.lstsq(x, y, rcond=None)[0]}
    x = np.linspace(-2, 2, 1000)
    return tutorial, (x, 3 * np.tanh(x) + rng.normal(size=1000)), {"a": 3.0, "b": 1.0}


def measured(call, name):
    """Wall seconds of two calls, and CPU seconds of the first."""
    import jax

    import numpyro_llc as nllc

    warnings.simplefilter("ignore")
    model, args, center = problem(name)
    if call == "find_center":
        function = partial(nllc.find_center, model=model, model_args=args)
    else:
        batch_size = None if call == "nuts" else BATCH_SIZE
        settings = {"center": center, "kernel": call, "batch_size": batch_size}
        function = partial(
            nllc.estimate_llc, model=model, model_args=args, progress_bar=False, **settings
        )
    keys = [jax.block_until_ready(jax.random.key(k)) for k in range(2)]
    seconds, before = [], cpu(resource.RUSAGE_SELF)
    for key in keys:
        began = time.perf_counter()
        function(key)
        seconds.append(time.perf_counter() - began)
        if len(seconds) == 1:
            used = cpu(resource.RUSAGE_SELF) - before
    return [*seconds, used]


def cpu(who):
    """CPU seconds so far."""
    spent = resource.getrusage(who)
    return spent.ru_utime + spent.ru_stime


def fresh(checkout, call, name):
    """The same in a process of its own, of the package in `checkout`."""
    path = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "MPLBACKEND": "Agg",
    }
    if call != DEMO:
        command = [sys.executable, __file__, "--measure", call, name]
        ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return json.loads(ended.stdout.splitlines()[-1])
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.perf_counter(), cpu(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "numpyro_llc", "demo"]
        subprocess.run(command, env=environment, check=True, capture_output=True, cwd=folder)
    spent = cpu(resource.RUSAGE_CHILDREN) - before
    return [time.perf_counter() - began, float("nan"), spent]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT], metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--calls", nargs="+", choices=[*CALLS, DEMO], default=[*CALLS, DEMO])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--measure", nargs=2, metavar=("CALL", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(*options.measure)))
        return
    checkouts = [folder.resolve() for folder in options.checkouts]
    names = [folder.name for folder in checkouts] if len(checkouts) > 1 else [""]
    heads = [f"{name} {what}".strip() for what in ("first", "second", "CPU") for name in names]
    print(f"| call | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for call in options.calls:
        for model in options.models if call != DEMO else ("",):
            turns = [
                [fresh(folder, call, model) for folder in checkouts] for _ in range(options.repeats)
            ]
            medians = [
                statistics.median(turn[k][what] for turn in turns)
                for what in range(3)
                for k in range(len(checkouts))
            ]
            cells = ["" if value != value else f"{value:.2f}" for value in medians]
            print(f"| {f'{call} {model}'.strip()} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
