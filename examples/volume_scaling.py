"""The volume where the loss is below ε shrinks like ε^λ; the Hessian knows λ only where it is full.

For the losses w², w⁴ and w1² w2⁴ on the box |w| < 1, V(ε) is the share of the box where the loss is
below ε, by Monte Carlo. The slope of log V against log ε, as ε goes to 0, is the learning
coefficient: 1/2, 1/4 and 1/4. The dashed line is what the Hessian at 0 says: V of the quadratic it
defines, of slope d/2, where it has full rank; where it is zero, the box is full at every ε
(slope 0). Half the number of parameters, as in BIC, would be 1/2, 1/2 and 1.

Run it with ``python examples/volume_scaling.py``: seconds.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import numpyro_llc as nllc

mpl.use("agg")
# The loss, its half Hessian's diagonal at 0, and the exponents k of |w_i|^(2 k_i).
LOSSES = {
    "w²": (lambda w: w[0] ** 2, [1.0], (1,)),
    "w⁴": (lambda w: w[0] ** 4, [0.0], (2,)),
    "w1² w2⁴": (lambda w: w[0] ** 2 * w[1] ** 4, [0.0, 0.0], (1, 2)),
}


def shares_below(loss, num_parameters, epsilon, num_points, rng):
    """The share of the box |w| < 1 where the loss is below each ε, in blocks of points."""
    count = np.zeros(len(epsilon))
    for block in np.array_split(np.arange(num_points), max(1, num_points // 10**6)):
        values = np.sort(loss(rng.uniform(-1, 1, size=(num_parameters, len(block)))))
        count += np.searchsorted(values, epsilon)
    return count / num_points


def slope(epsilon, volume, num_points):
    """Slope of log V against log ε over the lower half of the ε, and its standard error.

    The counts below two ε share their points, so the error is that of the ends: of log V of the
    lowest ε alone, over the range.
    """
    low = slice(0, len(epsilon) // 2)
    x, y = np.log(epsilon[low]), np.log(volume[low])
    first = volume[0]
    return np.polyfit(x, y, 1)[0], np.sqrt((1 - first) / (first * num_points)) / (x[-1] - x[0])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-points", type=int, default=20_000_000)
    parser.add_argument("--picture", type=Path, default=Path("volume_scaling.png"))
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(0)
    epsilon = np.geomspace(1e-8, 1e-1, 29)
    rows = {}
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
    for own, (name, (loss, curvature, powers)) in zip(axes, LOSSES.items(), strict=True):
        volume = shares_below(loss, len(powers), epsilon, options.num_points, rng)
        found, error = slope(epsilon, volume, options.num_points)
        known = nllc.exact.normal_crossing(powers)
        quadratic = shares_below(
            lambda w, h=curvature: np.tensordot(h, w**2, 1),
            len(powers),
            epsilon,
            options.num_points,
            rng,
        )
        rank = np.count_nonzero(curvature)
        own.loglog(epsilon, volume, "C0o", markersize=4, label=f"V(ε): slope {found:.3f}")
        line = volume[0] * (epsilon / epsilon[0]) ** float(known.value)
        own.loglog(epsilon, line, "C0", linewidth=0.8, label=f"λ = {known.value}")
        own.loglog(epsilon, quadratic, "C3--", label=f"the Hessian's: rank {rank} of {len(powers)}")
        own.set(title=f"loss {name}", xlabel="ε")
        own.legend(loc="lower right")
        rows[name] = {
            "slope": found,
            "error": error,
            "λ": float(known.value),
            "Hessian's rank / 2": rank / 2,
            "d/2": len(powers) / 2,
        }
    axes[0].set_ylabel("V(ε), share of the box")
    table = pd.DataFrame(rows).T
    print(table.round(4).to_string())
    figure.savefig(options.picture, dpi=90)
    print(f"picture: {options.picture}")
    return table


if __name__ == "__main__":
    main()
