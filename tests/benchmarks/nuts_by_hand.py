"""Wall time of ``estimate_llc`` against the same NUTS run written by hand, compilation included.

Each is timed in fresh processes, in turn; prints the times, and the median ratio pair by pair.
"""

import argparse
import json
import statistics
import subprocess
import sys

PROGRAM = """
import json, sys, time
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
import numpyro_llc as nllc

rng = np.random.default_rng(0)
name, which = sys.argv[1:]
if name == "regression":
    x = rng.normal(size=(5000, 10)); y = x @ np.ones(10) + rng.normal(size=5000)
    center = {"w": np.linalg.lstsq(x, y, rcond=None)[0]}
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([10]).to_event(1))
        with numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)
else:
    x = np.linspace(-2, 2, 1000); y = np.zeros(1000)
    center = {"w": np.zeros((3, 2))}
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([3, 2]).to_event(2))
        with numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal(jnp.tanh(x[:, None] * w[:, 0]) @ w[:, 1], 1.0), obs=y)
x, y = jnp.asarray(x), jnp.asarray(y)
began = time.perf_counter()
if which == "estimate_llc":
    idata = nllc.estimate_llc(jax.random.key(1), model, (x, y), center=center, progress_bar=False)
    steps = float(idata["sample_stats"]["n_steps"].mean())
    llc = idata["posterior"]["llc"].to_numpy()
else:
    beta = 1 / np.log(len(y))
    local = nllc.localize(model, center=center, inverse_temperature=beta)
    kernel = NUTS(local, target_accept_prob=0.99)
    mcmc = MCMC(kernel, num_warmup=1000, num_samples=1000, num_chains=4,
                chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.key(1), x, y, extra_fields=("potential_energy", "num_steps", "z"))
    fields = mcmc.get_extra_fields(group_by_chain=True)
    steps = float(np.mean(fields["num_steps"]))
    w = np.asarray(mcmc.get_samples(group_by_chain=True)["w"], float)
    gap = np.sum((w - np.asarray(center["w"])) ** 2, axis=tuple(range(2, w.ndim)))
    llc = np.asarray(fields["potential_energy"], float) - 0.5 * gap
    llc = llc - (0.5 * w[0, 0].size * np.log(2 * np.pi) + beta * float(
        -dist.Normal(0, 1).log_prob(0.0) * len(y) if name != "regression" else
        0.5 * np.sum((np.asarray(y) - np.asarray(x) @ center["w"]) ** 2)
        + 0.5 * len(y) * np.log(2 * np.pi)))
print(json.dumps([time.perf_counter() - began, steps, float(np.mean(llc))]))
"""


def run(model: str, which: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, model, which],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    for model in ("regression", "tanh network"):
        ratios = []
        for _ in range(options.pairs):
            ours, hand = run(model, "estimate_llc"), run(model, "by hand")
            ratios.append(ours[0] / hand[0])
            print(
                f"{model}: estimate_llc {ours[0]:.2f} s (λ̂ {ours[2]:.3f}, {ours[1]:.1f} steps a "
                f"draw), by hand {hand[0]:.2f} s (λ̂ {hand[2]:.3f}, {hand[1]:.1f} steps a draw)"
            )
        print(f"{model}: median ratio {statistics.median(ratios):.2f}\n")


if __name__ == "__main__":
    main()
