"""Ten small estimates with fixed keys, their numbers as lines of JSON: did a change move any?

Run it in the root of two versions of the package, then compare what they printed:
``python tests/benchmarks/same_numbers.py > new.json``, and
``python tests/benchmarks/same_numbers.py --compare old.json new.json``. It also runs on versions
whose functions take the centre and the temperature themselves, instead of a localized model.
"""

import argparse
import json
import warnings
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc

IS_LOCALIZED = hasattr(nllc, "evidence")
EVIDENCE, POINTWISE = (nllc.evidence, nllc.pointwise) if IS_LOCALIZED else (nllc, nllc)
NAMES = {"mcse": "mcse_mean", "ess": "ess_bulk"}
"""Columns by their name in other versions."""
LENGTHS = {"num_warmup": 200, "num_samples": 200, "num_chains": 2}
CALL = {**LENGTHS, "thinning": 1, "progress_bar": False}
BATCHES = {"kernel": "sgnht", "batch_size": 32}


def model(x, y):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([2]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x[:, :2] @ a + x[:, 2:] @ b, 1.0), obs=y)


def smaller(x, y):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x[:, :2] @ a, 1.0), obs=y)


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 5))
    return x, x @ [1.0, -1.0, 0.5, 0.0, 0.0] + rng.normal(size=256)


X, Y = DATA = data()
OLS = np.linalg.lstsq(X, Y, rcond=None)[0]
CENTER = {"a": OLS[:2], "b": OLS[2:]}


def call(function, seed, what, *args, of=model, **settings):
    """One of the functions that sample; `what` is said to ``localize`` where there is one."""
    chosen = (nllc.localize(of, **what),) if IS_LOCALIZED else (of,)
    said = {} if IS_LOCALIZED else {k: v for k, v in what.items() if v is not None}
    return function(jax.random.key(seed), *chosen, *args, **said, **settings)


def kernel(name, batch_size=None, **settings):
    """The keywords for a kernel with settings of its own."""
    if IS_LOCALIZED:
        return {"kernel": getattr(nllc, name.upper())(batch_size=batch_size, **settings)}
    return {"kernel": name, "batch_size": batch_size, **settings}


def estimate(seed, of=model, what=None, **settings):
    what = {"center": CENTER, **(what or {})}
    return call(nllc.estimate_llc, seed, what, DATA, of=of, **{**CALL, **settings})


def numbers_of(idata):
    """The row of a result, its draws one by one, and where the chains went."""
    llc = idata["posterior"]["llc"].to_numpy()
    stats = idata["sample_stats"]
    found = {name: float(value) for name, value in nllc.summary(idata).loc["llc"].items()}
    found |= {f"llc {k}": float(value) for k, value in enumerate(llc.ravel()[::40])}
    found["distance"] = float(stats["distance"].to_numpy().astype(np.float64).sum())
    for name, value in nllc.error_budget(idata)["value"].items():
        found[f"budget {name}"] = float(value)
    return found


def numbers_of_table(dataset):
    """Every number of a data set but the seconds, by variable and place."""
    return {
        f"{NAMES.get(name, name)} {place}": float(value)
        for name, values in dataset.data_vars.items()
        if np.issubdtype(values.dtype, np.number) and "seconds" not in name
        for place, value in enumerate(np.ravel(values.to_numpy())[:400])
    }


def nuts():
    return numbers_of(estimate(0))


def sgld():
    return numbers_of(estimate(1, **kernel("sgld", batch_size=32, step_size=0.003)))


def sgnht():
    return numbers_of(estimate(2, **BATCHES))


def sweep():
    axes = {"localization": [1.0, 10.0], "inverse_temperature": [0.1, 0.2]}
    return numbers_of_table(
        call(nllc.sweep, 3, {"center": CENTER}, DATA, **BATCHES, **CALL, **axes)
    )


def trajectory():
    centers = {name: np.stack([value, 1.01 * value, value]) for name, value in CENTER.items()}
    what = {"center": None, "localization": 2.0}
    return numbers_of_table(call(nllc.llc_trajectory, 4, what, centers, DATA, **BATCHES, **CALL))


def ladder():
    settings = {"inverse_temperatures": [0.01, 0.1, 0.3, 1.0], "progress_bar": False}
    found = call(EVIDENCE.temperature_ladder, 5, {"center": CENTER}, DATA, **LENGTHS, **settings)
    energy = EVIDENCE.free_energy(found)
    numbers = numbers_of_table(found[["excess_loss"]].isel(draw=slice(None, None, 50)))
    return {**numbers, "free energy": energy.value, "its error": energy.error}


def refined():
    sites = {"all": None, "head": ["b"]}
    other = {"half": (X[::2], Y[::2])}
    settings = {"sites": sites, "evaluate_on": other, **BATCHES}
    return numbers_of_table(call(nllc.refined_llc, 6, {"center": CENTER}, DATA, **settings, **CALL))


def calibrate():
    table = nllc.calibrate(
        jax.random.key(7), ["product_of_two"], kernels=["nuts", "sgnht"], num_data=100, **CALL
    )
    table = table.rename(columns=NAMES).drop(columns="seconds")
    kept = table.select_dtypes("number").reset_index(drop=True)
    return {
        f"{name} {place}": float(value)
        for name in kept.columns
        for place, value in enumerate(kept[name])
    }


def compare():
    fit = np.linalg.lstsq(X[:, :2], Y, rcond=None)[0]
    results = {
        "five": estimate(8),
        "two": estimate(9, of=smaller, what={"center": {"a": fit}}),
    }
    table = nllc.compare(results).select_dtypes("number").sort_index()
    return {f"{name} {row}": float(table.loc[row, name]) for name in table for row in table.index}


def waic():
    idata = estimate(10, what={"inverse_temperature": 1.0}, store_sites=True)
    losses = POINTWISE.pointwise_losses(idata, model, DATA)
    return {k: float(v) for k, v in POINTWISE.waic(POINTWISE.pointwise_statistics(losses)).items()}


ESTIMATES = (nuts, sgld, sgnht, sweep, trajectory, ladder, refined, calibrate, compare, waic)


def read(path):
    """What a run printed, by estimate."""
    return {k: v for line in path.read_text().splitlines() for k, v in json.loads(line).items()}


def report(old, new):
    """Per estimate, how many numbers are the same bit for bit, and which are not."""
    for name in [name for name in old if name in new]:
        one, two = old[name], new[name]
        shared = [key for key in one if key in two]
        apart = [k for k in shared if repr(one[k]) != repr(two[k])]
        print(f"{name}: {len(shared) - len(apart)} of {len(shared)} numbers are the same")
        for key in apart:
            print(f"  {key}: {one[key]!r}, {two[key]!r}")
        if alone := sorted(set(one) ^ set(two)):
            print(f"  in one only: {', '.join(alone)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[one.__name__ for one in ESTIMATES])
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    options = parser.parse_args()
    if options.compare:
        report(*map(read, options.compare))
        return
    warnings.simplefilter("ignore", nllc.LLCWarning)
    for one in ESTIMATES:
        if options.only is None or one.__name__ in options.only:
            print(json.dumps({one.__name__: one()}), flush=True)


if __name__ == "__main__":
    main()
