"""Whether errors of λ̂ cover where chains cross some directions slower than a run is long.

Run ``python tests/benchmarks/slow_directions.py`` (options: ``--help``). Exact Langevin chains move
in Gaussian models of known λ̂, from checkpoint to checkpoint of one model: at each from where they
ended, or from the centre. Runs end after a fixed length, or where ``until`` ends them, by ArviZ's
error or by the one that counts slow directions. Printed is the root mean square of
(λ̂ - exact)/error by either error.
"""

import argparse

import numpy as np

from numpyro_llc.inference_data import monte_carlo
from numpyro_llc.sampling import check_schedule
from numpyro_llc.sampling._draws import llc_of
from numpyro_llc.sampling._lengths import _sample

CHAINS, THINNING, WARMUP, STIFFNESS = 4, 4, 500, 0.25
MODELS = {
    "none": np.geomspace(200.0, 1000.0, 56),
    "3 of βh = γ": np.r_[np.full(3, 1.0), np.geomspace(200.0, 1000.0, 53)],
    "8 of βh = 0.3 γ": np.r_[np.full(8, 0.3), np.geomspace(200.0, 1000.0, 48)],
}


class Bar:
    """Shows nothing."""

    def describe(self, *said):
        pass

    def show(self, *said):
        pass


class Chains:
    """What decides on the length of a run, of chains that need no compiled code; γ is 1."""

    def __init__(self, curvatures, z, rng, counts_slow):
        self.curvatures, self.z, self.rng = curvatures, z, rng
        self.counts_slow, self.chunks, self.bar = counts_slow, [], Bar()
        self.num_chains, self.steps, self.warmed = CHAINS, WARMUP, WARMUP
        self.seen(1, WARMUP)

    def is_over(self, deadline):
        return False

    def seen(self, count, thinning):
        precision = self.curvatures + 1.0
        keep = np.exp(-STIFFNESS * thinning * precision / precision.max())
        spread = np.sqrt((1.0 - keep**2) / precision)
        excess, penalty = (np.empty((CHAINS, count)) for _ in range(2))
        for draw in range(count):
            self.z = keep * self.z + spread * self.rng.normal(size=self.z.shape)
            excess[:, draw] = 0.5 * self.z**2 @ self.curvatures
            penalty[:, draw] = 0.5 * np.sum(self.z**2, axis=1)
        return {"excess_loss": excess, "penalty": penalty}

    def draw(self, count, thinning, *, deadline=np.inf):
        self.chunks.append(self.seen(count, thinning))
        self.steps += count * thinning
        return count

    def llc(self):
        return llc_of(self.chunks, 1.0) if self.counts_slow else self.plain()

    def plain(self):
        return monte_carlo(np.concatenate([chunk["excess_loss"] for chunk in self.chunks], axis=1))


def trajectory(curvatures, count, *, carried, length=None, counts_slow=True):
    """λ̂ less the exact one, its two errors, and the draws of each checkpoint, ``[4, count]``."""
    rng, at_center = np.random.default_rng(0), np.zeros((CHAINS, len(curvatures)))
    exact, z, rows = 0.5 * np.sum(curvatures / (curvatures + 1.0)), at_center, []
    schedule = check_schedule(WARMUP, None, CHAINS, THINNING, "vectorized", False, 0.01)
    for _ in range(count):
        run = Chains(curvatures, z if carried else at_center, rng, counts_slow)
        if length is None:
            _sample(run, schedule, THINNING, 10**7)
        else:
            run.draw(length, THINNING)
        found, draws = run.plain(), sum(chunk["penalty"].shape[1] for chunk in run.chunks)
        rows.append((found.mean - exact, found.error, llc_of(run.chunks, 1.0).error, draws))
        z = run.z
    return np.array(rows).T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=40)
    count = parser.parse_args().checkpoints
    kinds = {
        "carried, fixed": {"carried": True, "length": 320},
        "carried, until by mcse_mean": {"carried": True, "counts_slow": False},
        "carried, until by error": {"carried": True},
        "at the centre, until by error": {"carried": False},
    }
    print("slow directions  chains and length               bias  by mcse_mean  by error  draws")
    for model, curvatures in MODELS.items():
        for kind, settings in kinds.items():
            gap, plain, slow, draws = trajectory(curvatures, count, **settings)
            one, two = (np.sqrt(np.mean((gap / error) ** 2)) for error in (plain, slow))
            bias, length = gap.mean(), int(np.median(draws))
            print(
                f"{model:16s} {kind:30s} {bias:6.2f} {one:13.2f} {two:9.2f} {length:6d}", flush=True
            )


if __name__ == "__main__":
    main()
