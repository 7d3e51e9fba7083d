"""The demo: how complex Gaussian mixtures of the galaxies are, at their best fit."""

from importlib.resources import files
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

from numpyro_llc.estimate import estimate_llc
from numpyro_llc.local import find_center
from numpyro_llc.plots import plot_traces
from numpyro_llc.results import summary


def galaxies() -> np.ndarray:
    """Velocities of 82 galaxies (Postman et al. 1986; Roeder 1990), standardized, an array [82].

    The 78th is 26960 km/s; common copies of the data have 26690 by a slip.
    """
    path = files("numpyro_llc") / "data" / "galaxies.csv"
    velocity = np.loadtxt(path.read_text().splitlines(), skiprows=1)
    return (velocity - velocity.mean()) / velocity.std()


MAX_COMPONENTS = 4


def mixture(velocity: jax.Array, active: jax.Array) -> None:
    """A mixture of Gaussians of one common scale, of the components that are `active`.

    One program for every number of components, so that it compiles once: the loss does not depend
    on the parameters of an inactive component, which therefore add nothing to λ̂.
    """
    k = active.shape[0]
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(k)))
    means = numpyro.sample("means", dist.Normal(0.0, 1.5).expand([k]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    component = dist.Categorical(logits=jnp.where(active, jnp.log(weights), -jnp.inf))
    with numpyro.plate("galaxies", velocity.shape[0]):
        likelihood = dist.MixtureSameFamily(component, dist.Normal(means, scale))
        numpyro.sample("velocity", likelihood, obs=velocity)


def run_demo(
    output: Path, *, seed: int, num_samples: int, num_warmup: int, progress_bar: bool
) -> pd.DataFrame:
    """Estimate λ̂ of one to four components; write traces and a picture; return the table.

    Parameters
    ----------
    output : pathlib.Path
        Folder for ``mixture_<k>.nc`` and ``traces.png``; made if absent.

    Returns
    -------
    pandas.DataFrame
        A row for each model: number of parameters halved, loss at the centre (nats), and the row
        ``llc`` of its summary.
    """
    output.mkdir(parents=True, exist_ok=True)
    velocity, results, rows = galaxies(), {}, {}
    for k in range(1, MAX_COMPONENTS + 1):
        name = f"{k} component" + "s" * (k > 1)
        arguments = (velocity, np.arange(MAX_COMPONENTS) < k)
        key_center, key_chains = jax.random.split(jax.random.key(seed + k))
        center = find_center(key_center, mixture, arguments)
        results[name] = estimate_llc(
            key_chains,
            mixture,
            arguments,
            center=center,
            num_warmup=num_warmup,
            num_samples=num_samples,
            progress_bar=progress_bar,
        )
        results[name].to_netcdf(str(output / f"mixture_{k}.nc"))
        # k means, k - 1 free weights and one scale are 2k parameters: d/2 = k.
        rows[name] = {"d/2": float(k), "loss": center.loss, **summary(results[name]).loc["llc"]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    axes = plot_traces(results, half_dimensions=table["d/2"])
    axes[0, 0].figure.savefig(output / "traces.png", dpi=120)
    return table
