"""What the finite step adds to λ̂, and how much shorter it must be to add less."""

from collections.abc import Mapping

import jax
import numpy as np

from numpyro_llc.kernels._rule import Rule
from numpyro_llc.kernels._tuning import Tuning, TuningSummary, summarized
from numpyro_llc.local import LocalTarget

LEAST_SCALE = 0.1
"""A step is not shortened further than this after the warm-up, whatever its bias."""


def step_bias(
    rule: Rule, tuning: Tuning, target: LocalTarget, statistics: Mapping[str, np.ndarray]
) -> float:
    """What the finite step may shift λ̂ by, from the squared gradients of the draws."""
    square = float(np.mean(statistics["square_gradient"]))
    seen = summarized(tuning)
    of_loss = max(square - _of_localization(seen, target), 0.0)
    return rule.step_bias(seen.step_size, of_loss, seen.spread)


def step_scale(
    rule: Rule,
    tuning: Tuning,
    target: LocalTarget,
    statistics: Mapping[str, np.ndarray],
    most_bias: float,
) -> float:
    """What to multiply the step size by, for a bias of at most `most_bias`."""
    bias = step_bias(rule, tuning, target, statistics)
    if not bias > most_bias:  # of a NaN it is not
        return 1.0
    # It is proportional to the stiffness, whatever power of the step size that is.
    stiffness = rule.stiffness_of(1.0, 1.0) * most_bias / bias
    return max(float(rule.step_of(stiffness, 1.0)), LEAST_SCALE)


def _of_localization(tuning: TuningSummary, target: LocalTarget) -> float:
    """The part of ``E|∇U|²`` that the localizing Gaussian has.

    ``E[∇U · G ∇P] = tr(G ∇²P)``, P the penalty (partial integration), so that what is left is
    ``E[∇U · G ∇(β nL)]``: a step that is coarse in directions that γ alone holds moves no loss.
    """
    total = 0.0
    for name, gamma in target.localization.items():
        sizes = map(np.size, jax.tree.leaves(target.center[name]))
        trace = sum(sizes) if tuning.trace is None else tuning.trace[name]
        total += float(gamma) * trace
    return total
