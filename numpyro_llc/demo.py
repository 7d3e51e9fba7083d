"""The demo: what hidden units add to a linear network of Fisher's irises, and what BIC charges."""

from importlib.resources import files
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.infer import HMC

import numpyro_llc as nllc
from numpyro_llc.models import Fields
from numpyro_llc.plots import plot_complexity

MOST_UNITS = 6
FLOWERS_OF_A_SPECIES = 50
RUNGS = tuple(np.geomspace(2.5e-3, 1.0, 9).tolist())
"""Inverse temperatures of the ladder: neighbours overlap where λ is about 6. Where the prior rules,
below the lowest, all weights have one scale, and trajectories come back to where they began."""
LADDER_STEPS = 300
"""Steps of the warm-up, and draws, of a chain on each rung."""


def irises() -> tuple[np.ndarray, np.ndarray]:
    """Species and measurements of 150 irises (Anderson 1935; Fisher 1936).

    Returns
    -------
    species : array [150, 3]
        1 for the flower's own of setosa, versicolor and virginica, 50 flowers each.
    measurements : array [150, 4]
        Length and width of sepals and petals, less their means over all flowers, in units of their
        standard deviations within a species.
    """
    path = files("numpyro_llc") / "data" / "iris.csv"
    rows = np.loadtxt(path.read_text().splitlines(), skiprows=1, delimiter=",", usecols=range(4))
    by_species = rows.reshape(3, FLOWERS_OF_A_SPECIES, 4)
    spread = np.sqrt(by_species.var(axis=1).mean(axis=0))
    return np.repeat(np.eye(3), FLOWERS_OF_A_SPECIES, axis=0), (rows - rows.mean(axis=0)) / spread


def network(species: jax.Array, used: jax.Array, measurements: jax.Array) -> None:
    """A linear network from species to measurements, of the hidden units that are `used`.

    One program for every number of units, so that it compiles once: the loss does not depend on the
    weights of a unit that is not used, which therefore add nothing to λ̂.
    """
    (num_flowers, inputs), units, outputs = species.shape, len(used), measurements.shape[1]
    into = numpyro.sample("into", dist.Normal().expand([inputs, units]).to_event(2))
    out = numpyro.sample("out", dist.Normal().expand([units, outputs]).to_event(2))
    with numpyro.plate("flowers", num_flowers):
        mean = species @ ((into * used) @ out)
        numpyro.sample("measurements", dist.Normal(mean, 1.0).to_event(1), obs=measurements)


KERNEL = HMC(network, num_steps=8, trajectory_length=None)
"""One object, so that its programs are compiled once. Its chains, and the rungs of the ladder, go
side by side, where those of NUTS would wait for the longest tree."""


def best_fit(species: np.ndarray, measurements: np.ndarray, units: int) -> dict[str, np.ndarray]:
    """Weights of a maximum of the likelihood with that many units, from the means of the species.

    Eckart & Young (1936): the largest singular values and their vectors. The third singular value
    is 0, since the means, less that of all flowers, lie on a plane: so are the weights of all units
    but two.
    """
    means = species.T @ measurements / FLOWERS_OF_A_SPECIES
    left, values, right = np.linalg.svd(means, full_matrices=False)
    values[min(units, 2) :] = 0.0
    into, out = np.zeros((3, MOST_UNITS)), np.zeros((MOST_UNITS, 4))
    into[:, :3], out[:3] = left * np.sqrt(values), np.sqrt(values)[:, None] * right
    return {"into": into, "out": out}


def run_demo(
    output: Path, *, seed: int, num_samples: int, num_warmup: int, progress_bar: bool
) -> pd.DataFrame:
    """Estimate λ̂ and the evidence of one to six hidden units; write results and a picture.

    Parameters
    ----------
    output : pathlib.Path
        Folder for ``units_<k>.nc``, ``table.csv`` and ``demo.png``; made if absent.

    Returns
    -------
    pandas.DataFrame
        A row for each number of hidden units: ``d/2``, the exact ``λ``, λ̂ (``llc``) and λ̂
        extrapolated to γ = 0 (``corrected``), the criteria ``bic``, ``local_free_energy`` and
        ``evidence`` in nats, Monte Carlo errors behind each (``..._se``), and R-hat.
    """
    output.mkdir(parents=True, exist_ok=True)
    settings: Fields = {
        "kernel": KERNEL,
        "num_samples": num_samples,
        "num_warmup": num_warmup,
        "progress_bar": progress_bar,
    }
    rows = {}
    for units in range(1, MOST_UNITS + 1):
        rows[units] = _row(units, jax.random.key(seed + units), settings, output)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("hidden units")
    table.to_csv(output / "table.csv")
    plot_complexity(table)[0].figure.savefig(output / "demo.png", dpi=120)
    return table


def _row(units: int, rng_key: jax.Array, settings: Fields, output: Path) -> dict[str, float]:
    """The row of the table of one number of hidden units; writes the draws of its λ̂."""
    species, measurements = irises()
    arguments = (species, jnp.arange(MOST_UNITS) < units, measurements)
    local = nllc.localize(network, center=best_fit(species, measurements, units))
    key_llc, key_ladder = jax.random.split(rng_key)
    idata = nllc.estimate_llc(key_llc, local, arguments, **settings)
    idata.to_netcdf(str(output / f"units_{units}.nc"))
    estimates = nllc.summary(idata, estimators=("mean", "localization_corrected"))
    ladder = nllc.evidence.temperature_ladder(
        key_ladder,
        local,
        arguments,
        prior="model",
        inverse_temperatures=RUNGS,
        kernel=KERNEL,
        num_warmup=LADDER_STEPS,
        num_samples=LADDER_STEPS,
        progress_bar=bool(settings["progress_bar"]),
    )
    local_energy, evidence = nllc.local_free_energy(idata), ladder.free_energy()
    half = 0.5 * units * (species.shape[1] + measurements.shape[1])
    known = nllc.exact.reduced_rank_regression(3, units, 4, rank=min(units, 2))
    return {
        "d/2": half,
        "λ": float(known.value),
        "llc": estimates.loc["mean", "mean"],
        "llc_se": estimates.loc["mean", "mcse_mean"],
        "corrected": estimates.loc["localization_corrected", "mean"],
        "corrected_se": estimates.loc["localization_corrected", "mcse_mean"],
        "r_hat": estimates.loc["mean", "r_hat"],
        "bic": local_energy.loss + half * np.log(len(species)),
        "local_free_energy": local_energy.value,
        "local_free_energy_se": local_energy.error,
        "evidence": evidence.value,
        "evidence_se": evidence.error,
    }


def table_text(table: pd.DataFrame) -> str:
    """The table as it is printed: numbers with their errors in one column."""
    columns = {
        "d/2": "d/2",
        "λ": "λ",
        "llc": "λ̂",
        "corrected": "γ-corrected",
        "r_hat": "R-hat",
        "bic": "BIC",
        "local_free_energy": "local free energy",
        "evidence": "-log evidence",
    }
    digits = {"r_hat": 3, "llc": 2, "corrected": 2}
    shown = {}
    for name, label in columns.items():
        places = digits.get(name, 1)
        shown[label] = [f"{value:.{places}f}" for value in table[name]]
        if f"{name}_se" in table:
            errors = table[f"{name}_se"]
            shown[label] = [
                f"{value} ± {error:.2f}" for value, error in zip(shown[label], errors, strict=True)
            ]
    return pd.DataFrame(shown, index=table.index).to_string()
