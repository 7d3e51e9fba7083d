"""What `test_devices.py` runs on eight devices, in a process of its own; prints JSON."""

import json
import re
import sys
import warnings
from pathlib import Path

import numpyro

numpyro.set_host_device_count(8)

import fingerprinted  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
import regression  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402
from metropolis import METROPOLIS  # noqa: E402

import numpyro_llc as nllc  # noqa: E402
from numpyro_llc import cli, sampling  # noqa: E402, F401
from numpyro_llc.kernels import kernel_of  # noqa: E402

IMPORTED = sorted(sys.modules)
warnings.simplefilter("ignore")
LENGTHS = {"num_warmup": 30, "num_samples": 20, "thinning": 1, "progress_bar": False}
DATA = regression.X, regression.Y
CENTER = {"w": regression.OLS}


def mesh(**axes):
    count = int(np.prod(list(axes.values())))
    return jax.make_mesh(tuple(axes.values()), tuple(axes), devices=jax.devices()[:count])


def put(array, on, *spec):
    return jax.device_put(array, NamedSharding(on, PartitionSpec(*spec)))


def draws(on=None, data=DATA, center=CENTER, **settings):
    settings = {"kernel": "sgld", "num_chains": 3, **LENGTHS, **settings}
    local = nllc.localize(regression.model, center=center)
    idata = nllc.estimate_llc(jax.random.key(0), local, data, mesh=on, **settings)
    return idata["posterior"]["llc"].to_numpy().tolist()


def network(x, y=None):
    first = numpyro.sample("first", dist.Normal(0.0, 1.0).expand([5, 8]).to_event(2))
    last = numpyro.sample("last", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(jax.numpy.tanh(x @ first) @ last, 1.0), obs=y)


def run_of(model, center, data, on=None, batch_size=None):
    """A run at its start, and what its program sends between devices: kinds and sizes."""
    schedule = sampling.check_schedule(10, 10, 4, 1, "vectorized", False, None, on)
    local = nllc.localize(model, center=center)
    plan = sampling.make_plan(local, data, None, kernel_of("sgld", batch_size), schedule)
    rows = sampling.evaluation_rows(plan, jax.random.key(3))
    run = sampling.Run(plan, plan.starts(None, jax.random.key(1)), jax.random.key(2), rows=rows)
    given = run.progress, {}, plan.target, rows, {}, 4, 2, True, True
    compiled = sampling.advance.lower(plan.sampler, run.layout, (), *given).compile()
    found = re.findall(r"= (.*?) (all-\w+|collective-\w+|reduce-scatter)\(", compiled.as_text())
    return run, [
        (kind, int(np.prod([int(k) for k in shape.split(",") if k])))
        for shapes, kind in found
        for shape in re.findall(r"\[([\d,]*)\]", shapes)
    ]


def messages():
    """Chains, rows and parameters, each over two devices."""
    on = mesh(chain=2, data=2, model=2)
    first = np.random.default_rng(4).normal(size=(5, 8))
    center = {"first": put(first, on, None, "model"), "last": put(first[0], on, "model")}
    run, found = run_of(network, center, [put(part, on, "data") for part in DATA], on, 20)
    rows = [shard.data.shape[0] for shard in run.target.arrays[0].addressable_shards]
    held = jax.tree.map(
        lambda leaf: leaf.addressable_shards[0].data.shape,
        (run.state.z, run.state.anchor.gradient),
    )
    run.walk(3)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    run.draw(2, 2)
    return {"found": found, "rows": rows, "held": held, "again": len(compiled)}


def uneven_messages():
    """Chains over two devices and 500 rows over three, which do not divide them."""
    run, found = run_of(regression.model, CENTER, DATA, mesh(chain=2, data=3), 21)
    rows = [shard.data.shape[0] for shard in run.target.arrays[0].addressable_shards]
    return {"found": found, "rows": rows}


def parallel_chains():
    """Draws of chains on a device each, without a mesh; that there is but one would be said."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*over 1 device")
        return draws(kernel=METROPOLIS, chain_method="parallel")


def example():
    """The first example of the page of docs."""
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "devices.md").read_text()
    names = {}
    exec(
        page.split("```python\n")[1]
        .split("```")[0]
        .replace("mesh=mesh", f"mesh=mesh, **{LENGTHS}"),
        names,
    )
    return names["idata"]["posterior"]["llc"].to_numpy().tolist()


def tables(on):
    """λ̂ by each function that makes a table or a ladder, with and without a mesh."""
    local, key = nllc.localize(regression.model, center=CENTER), jax.random.key(0)
    given = {"num_chains": 4, "mesh": on, "progress_bar": False}
    lengths = {"num_warmup": 30, "num_samples": 20, **given}
    walk = {"kernel": METROPOLIS, "thinning": 1, **lengths}
    centers = [CENTER, {"w": regression.OLS + 0.1}]
    ladder = nllc.evidence.temperature_ladder(
        key, local, DATA, inverse_temperatures=[0.1, 1.0], kernel=METROPOLIS, **lengths
    )
    return {
        "sweep": nllc.sweep(
            key, local, DATA, localization=[1.0, 9.0], **{**walk, "kernel": "sgld"}
        )["llc"].values.tolist(),
        "trajectory": nllc.llc_trajectory(key, local, centers, DATA, **walk)["llc"].values.tolist(),
        "refined": nllc.refined_llc(
            key, local, DATA, sites={"all": None, "one": {"w": np.arange(5) < 2}}, **walk
        )["llc"].values.tolist(),
        "ladder": ladder.data["excess_loss"].values[1:].mean(axis=(1, 2)).tolist(),
    }


def cases(folder):
    """What can be asked for, by claim."""
    on, begun = mesh(chain=2, data=2), f"{folder}/begun"
    explicit = mesh(rows=2)
    return {
        "alone": lambda: draws(kernel=METROPOLIS, output=begun),
        "both": lambda: draws(on, kernel=METROPOLIS),
        "uneven rows": lambda: draws(mesh(data=3), kernel=METROPOLIS),
        "gone on": lambda: draws(on, kernel=METROPOLIS, output=begun),
        "parallel chains": parallel_chains,
        "messages": messages,
        "uneven messages": uneven_messages,
        "imported": lambda: IMPORTED,
        "fingerprint": lambda: sampling.fingerprint(fingerprinted.model()),
        "example": example,
        "sgld alone": draws,
        "sgld over chains": lambda: draws(mesh(chain=2)),
        "sgld over rows": lambda: draws(mesh(data=4)),
        "sgld on data that lie on devices": lambda: draws(
            data=[put(x, explicit, "rows") for x in DATA]
        ),
        "nuts alone": lambda: draws(kernel="nuts"),
        "nuts": lambda: draws(on, kernel="nuts"),
        "sequential": lambda: draws(chain_method="sequential", batch_size=20),
        "tables alone": lambda: tables(None),
        "tables": lambda: tables(on),
        "parallel": lambda: draws(mesh(chain=2), chain_method="parallel", batch_size=20),
    }


if __name__ == "__main__":
    known = cases(sys.argv[1])
    print(json.dumps({name: known[name]() for name in sys.argv[2:]}))
