"""Why the point where a search ended is no local minimum."""

import numpy as np

from numpyro_llc.local._curvature import Curvature, lowest_curvature
from numpyro_llc.local._edge import AT_THE_EDGE, BY_THE_PRIOR, edge_of
from numpyro_llc.local._slope import TRAP
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.local._total_loss import total_loss

CONVERGED_NATS = 1e-3
"""What a damped Newton step may still gain at a converged centre."""
NO_LOSS = 1e-3
"""Nats for each datum, below which a loss that cannot be negative is all but gone."""
FLAT_CURVATURE, ROUNDED_CURVATURE = 1e-6, 1e-2
"""A largest Hessian eigenvalue of nL below this, in nats, is no curvature at all; where the loss is
gone, what rounding leaves of one may be larger."""


def doubt_of(found: Curvature, target: LocalTarget, objective: str) -> str:
    """Why the end is no local minimum of the objective, with the numbers; empty if it is one."""
    if found.edge:
        is_map = objective == "map"
        where = edge_of(found.edge, "posterior density" if is_map else "likelihood")
        remedy = AT_THE_EDGE if is_map else f"{AT_THE_EDGE} {BY_THE_PRIOR}"
        return f"`find_center` found no minimum inside: {where}. {remedy}"
    if not np.isfinite(found.largest):
        return (
            "`find_center` stopped where derivatives of the loss are not finite "
            f"({dict(found.undefined) or 'those of second order'}): whether it is a local minimum "
            f"is not known. {TRAP}."
        )
    is_gone = _is_gone(target)
    if not found.largest > (ROUNDED_CURVATURE if is_gone else FLAT_CURVATURE):
        remedy = remedy_of(target) if is_gone else "Use objective='map'."
        return (
            f"`find_center` stopped where the loss is flat (largest Hessian eigenvalue "
            f"{found.largest:.3g}): it is constant there, as a hinge loss is, or there is no "
            f"minimum (separable classes, a scale that goes to zero). {remedy}"
        )
    beta, gamma = float(target.inverse_temperature), min(map(float, target.localization.values()))
    lowest = lowest_curvature(found.largest, beta, gamma)
    if -found.newton_shift < CONVERGED_NATS and not found.smallest < lowest:
        return ""
    is_saddle = found.smallest < lowest  # at which a Newton step goes to no minimum
    gain = "" if is_saddle else f", {-found.newton_shift:.3g} nats to gain by a Newton step"
    return (
        f"`find_center` stopped at {'a saddle, which' if is_saddle else 'a point that'} is no "
        f"local minimum: gradient norm {found.gradient_norm:.3g}, smallest Hessian eigenvalue "
        f"{found.smallest:.3g} (largest {found.largest:.3g}){gain}. {remedy_of(target)}"
    )


def _count(target: LocalTarget) -> int:
    return sum(losses.size for losses in target.center_losses.values())


def _is_gone(target: LocalTarget) -> bool:
    """Whether nothing is left of a loss that cannot be negative."""
    return bool(0.0 <= total_loss(target.center_losses) < NO_LOSS * _count(target))


def remedy_of(target: LocalTarget) -> str:
    """What helps where a search ended at no minimum."""
    if _is_gone(target):
        loss = total_loss(target.center_losses)
        return (
            f"The loss there is {loss:.3g} nats for {_count(target)} data: of classes that are "
            "separated it falls to 0 at infinity, and there is no minimum. Localize where training "
            "ended, with truth='center', or use objective='map'."
        )
    return "Raise `max_steps` or `num_starts`, or rescale the parameters."
