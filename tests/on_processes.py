"""What `test_processes.py` runs in several processes of two devices each; prints JSON.

python on_processes.py PROCESS COUNT PORT CASE FOLDER [WHO MOMENT]
"""

import json
import os
import signal
import sys
import warnings

import jax

INDEX, COUNT, PORT = map(int, sys.argv[1:4])
CASE, FOLDER = sys.argv[4:6]
jax.config.update("jax_num_cpu_devices", 2)
if COUNT > 1:
    address = f"127.0.0.1:{PORT}"
    jax.distributed.initialize(address, COUNT, INDEX, heartbeat_timeout_seconds=20)

import numpy as np  # noqa: E402
import regression  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402
from metropolis import METROPOLIS  # noqa: E402

import numpyro_llc as nllc  # noqa: E402
from numpyro_llc import sampling  # noqa: E402

warnings.simplefilter("ignore")
DATA = np.asarray(regression.X), np.asarray(regression.Y)
CENTER = {"w": np.asarray(regression.OLS)}
WHO, MOMENT = (int(number) for number in (*sys.argv[6:8], COUNT - 1, 4)[:2])
"""Which process is killed or told to stop, and at which chunk."""


def run(model=regression.model, center=CENTER, data=DATA, **settings):
    mesh = jax.make_mesh((2, COUNT), ("chain", "data")) if COUNT > 1 else None
    lengths = {"num_warmup": 30, "num_samples": 100, "thinning": 5, "progress_bar": False}
    settings = {"mesh": mesh, "kernel": METROPOLIS, "num_chains": 4, **lengths, **settings}
    idata = nllc.estimate_llc(jax.random.key(0), model, data, center=center, **settings)
    row = nllc.summary(idata).loc["llc"].to_dict()
    return {
        "llc": idata["posterior"]["llc"].to_numpy().tolist(),
        "ended_by": idata.attrs["ended_by"],
        "row": {name: float(value) for name, value in row.items() if np.isscalar(value)},
    }


def parameters():
    """Of a parameter of which each process holds a part."""
    mesh = jax.make_mesh((COUNT, 2), ("model", "data"))
    w = jax.device_put(
        np.append(CENTER["w"], 0.0).astype(np.float32), NamedSharding(mesh, PartitionSpec("model"))
    )
    data = jax.device_put(
        (np.c_[DATA[0], DATA[1] ** 2].astype(np.float32), DATA[1].astype(np.float32)),
        NamedSharding(mesh, PartitionSpec("data")),
    )
    local = nllc.localize(regression.model, center={"w": w})
    idata = nllc.estimate_llc(
        jax.random.key(0),
        local,
        data,
        kernel="sgld",
        batch_size=20,
        num_chains=2,
        num_warmup=30,
        num_samples=40,
        store_sites=True,
        output=FOLDER,
        progress_bar=False,
    )
    return {"llc": idata["posterior"]["llc"].to_numpy().tolist()}


def tables():
    """λ̂ by each function that makes a table, in a folder each; the second call reads it."""
    mesh = jax.make_mesh((2, COUNT), ("chain", "data")) if COUNT > 1 else None
    lengths = {"num_warmup": 30, "num_samples": 40, "num_chains": 4, "progress_bar": False}
    given = {"mesh": mesh, "kernel": METROPOLIS, "thinning": 5, **lengths}
    local, key = nllc.localize(regression.model, center=CENTER), jax.random.key(0)
    centers = [{"w": CENTER["w"] + 0.1 * k} for k in range(3)]
    parts = {"all": None, "one": {"w": np.arange(5) < 2}}

    def made():
        return {
            "sweep": nllc.sweep(
                key, local, DATA, localization=[1.0, 9.0], output=f"{FOLDER}/sweep", **given
            ),
            "trajectory": nllc.llc_trajectory(
                key, local, centers, DATA, output=f"{FOLDER}/trajectory", **given
            ),
            "refined": nllc.refined_llc(
                key, local, DATA, sites=parts, output=f"{FOLDER}/refined", **given
            ),
        }

    found, again = made(), made()
    for name in ("sweep", "trajectory"):
        np.testing.assert_array_equal(found[name]["seconds"], again[name]["seconds"])
    return {name: table["llc"].values.tolist() for name, table in found.items()}


def at_a_chunk(act):
    """Do something in one process when some chunks were made."""
    advance, calls = sampling._run.advance, []

    def counted(*args):
        calls.append(args)
        if len(calls) == MOMENT and INDEX == WHO:
            act()
        return advance(*args)

    sampling._run.advance = counted


def killed():
    at_a_chunk(lambda: os.kill(os.getpid(), signal.SIGKILL))
    sampling._folder.SHARE_OF_TIME = 1e9  # every chunk is written
    return run(output=FOLDER)


def interrupted():
    at_a_chunk(lambda: signal.raise_signal(signal.SIGINT))
    return run(output=FOLDER, num_samples=100_000, num_warmup=1)


CASES = {
    "draws": lambda: run(output=FOLDER),
    "nuts": lambda: run(kernel="nuts", num_warmup=200, num_samples=500, thinning=1),
    "until": lambda: run(num_samples=None, num_warmup=None, thinning=None, until={"seconds": 3}),
    "uneven rows": lambda: run(data=[part[:499] for part in DATA]),
    "parameters": parameters,
    "tables": tables,
    "killed": killed,
    "interrupted": interrupted,
}

if __name__ == "__main__":
    print(json.dumps(CASES[CASE]()))
