"""How many components do the galaxies have? BIC, WBIC, evidence, WAIC and LOO side by side.

Gaussian mixtures of one common scale of 82 velocities. Criteria of the free energy
(smaller is better) ask which model the data came from, WAIC and LOO which predicts best; all are
in nats here, with the sign that smaller is better.
"""

import argparse
import warnings
from math import lgamma, log
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.infer import MCMC, NUTS

import numpyro_llc as nllc

mpl.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

DATA = Path(__file__).parent / "galaxies.csv"
RUNGS = np.concatenate([[0.003], np.geomspace(0.01, 1.0, 9)])


def galaxies():
    """Velocities of 82 galaxies (Postman et al. 1986; Roeder 1990), standardized, an array [82].

    The 78th is 26960 km/s; common copies of the data have 26690 by a slip.
    """
    velocity = np.loadtxt(DATA, skiprows=1)
    return (velocity - velocity.mean()) / velocity.std()


def mixture(velocity, active):
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


def predictive(key, arguments, options, kernel):
    """-elpd by WAIC and by LOO of the model's own posterior, their errors, and what failed."""
    mcmc = MCMC(
        kernel,
        num_warmup=options.num_warmup,
        num_samples=options.num_samples,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    with numpyro.validation_enabled(False):  # a component that is off has the logit -inf
        mcmc.run(key, *arguments)
        idata = az.from_numpyro(mcmc)
    losses = nllc.pointwise.pointwise_losses(idata, mixture, arguments)
    found = nllc.pointwise.pointwise_statistics(losses, loo=True)
    by_waic = found.waic()
    return {
        "WAIC": -by_waic["elpd_waic"],
        "LOO": -float(found["elpd_loo"].sum()),
        "se over data": by_waic["se"],
        "p_waic": by_waic["p_waic"],
        "k > 0.7": int((found["pareto_k"] > 0.7).sum()),
    }


def row(components, velocity, options):
    """All criteria of one number of components."""
    arguments = (velocity, np.arange(max(options.most, 2)) < components)
    keys = jax.random.split(jax.random.key(options.seed + components), 4)
    kernel = NUTS(mixture, target_accept_prob=0.95)
    center = nllc.find_center(keys[0], mixture, arguments, num_starts=options.num_starts)
    localized = nllc.localize(mixture, center=center)
    settings = {
        "num_samples": options.num_samples,
        "num_warmup": options.num_warmup,
        "progress_bar": False,
    }
    local = nllc.estimate_llc(keys[1], localized, arguments, **settings)
    ladder = nllc.evidence.temperature_ladder(
        keys[2],
        localized,
        arguments,
        prior="model",
        kernel=kernel,
        inverse_temperatures=RUNGS,
        chain_method="sequential",  # of NUTS, rungs side by side wait for the longest tree
        **settings,
    )
    tempered, evidence = nllc.wbic(local), nllc.evidence.free_energy(ladder)
    # k means, k - 1 free weights and one scale are 2k parameters: d/2 = k.
    return {
        "loss": center.loss,
        "llc": tempered.complexity / log(len(velocity)),
        "BIC": center.loss + components * log(len(velocity)),
        "WBIC": tempered.value,
        "WBIC error": tempered.error,
        "WBIC - log k!": tempered.value - lgamma(components + 1),
        "evidence": evidence.value,
        "error": evidence.error,
        **predictive(keys[3], arguments, options, kernel),
    }


CRITERIA = ("BIC", "WBIC", "WBIC - log k!", "evidence", "WAIC", "LOO")


def picture(table, path):
    """Each criterion above its smallest value, by the number of components."""
    _, axes = plt.subplots(figsize=(6.5, 4.0), layout="constrained")
    for place, name in enumerate(CRITERIA):
        apart = table[name] - table[name].min()
        axes.plot(table.index, apart, marker="osd^vx"[place], label=name)
    axes.set(
        xlabel="components", ylabel="above the best (nats)", yscale="symlog", ylim=(-0.3, None)
    )
    axes.set_xticks(table.index)
    axes.legend(frameon=False)
    axes.figure.savefig(path, dpi=120)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=5, help="components to try")
    parser.add_argument("--num-samples", type=int, default=300)
    parser.add_argument("--num-warmup", type=int, default=300)
    parser.add_argument("--num-starts", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path("docs/model_comparison.png"))
    options = parser.parse_args(arguments)
    velocity, rows = galaxies(), {}
    for components in range(1, options.most + 1):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", nllc.LLCWarning)
            rows[components] = row(components, velocity, options)
        print(f"{components}: ", *(one.message for one in said), sep="\n  ", flush=True)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("components")
    picture(table, options.picture)
    print(table.round(2).to_string())
    return table


if __name__ == "__main__":
    main()
