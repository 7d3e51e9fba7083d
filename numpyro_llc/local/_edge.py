"""Where the loss is lowest at no point inside: it falls all the way to an edge, or to infinity."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Parameters, on_host, shapes_of

FAR = 2.0
"""An unconstrained coordinate beyond this may be on its way to an edge: of a share, below 12 %."""
AT_THE_END = 5.0
"""A coordinate beyond this may have arrived. Nearer, a share is above 0.6 %, so that the loss of a
single datum would still fall by more than the tolerance: where it does not, it is a valley."""
FLAT_DIRECTION = 0.05
"""Nats per unit: with a smaller eigenvalue, real parameters too may be on their way out."""
TOLERANCE = 1e-3
"""Nats by which the loss may rise outward, and must rise inward."""
OUTWARD = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Steps towards the edge, in unconstrained coordinates: up to a factor of 10⁷ in the distance."""
INWARD = (0.25, 0.5, 1.0)
"""Steps back, as shares of the way to zero."""
MOST_PROBES = 16
"""Directions that are looked along; the farthest out come first."""


AT_THE_EDGE = (
    "Leave out of the model what is zero or certain there (an empty category, a scale that "
    "vanishes, a column that separates the classes), or hold that site fixed and sample the others "
    "(`sites`). Of a network that separates its classes, localize where training ended, with "
    "truth='center'. For the evidence, nllc.evidence.temperature_ladder needs no minimum. An angle "
    "(VonMises) has no edge after numpyro.infer.reparam.CircularReparam."
)
"""What can be done."""
BY_THE_PRIOR = (
    "The mode of the posterior, find_center(objective='map'), lies inside if the prior keeps off "
    "the edge; the loss has a slope there, which lowers λ̂."
)


def edge_of(sites: Sequence[str], what: str = "likelihood") -> str:
    """What is the matter, in words."""
    named = ", ".join(f"`{name}`" for name in sites)
    return f"the {what} is largest at the edge of {named} (of the support, or at infinity)"


def edge_sites(target: LocalTarget, hessian: np.ndarray | None) -> tuple[str, ...]:
    """Sites along which the loss does not rise from the centre to the edge of their support.

    Along a direction that leads out, the loss must not rise from one of the steps ``OUTWARD`` to
    the next, and must rise on the way back to zero: of a direction in which the loss is constant
    nothing is said. Directions are the coordinates of constrained sites; and where `hessian` (of
    nL) has a flat direction, also those of real sites, the sites as a whole, and the flat
    directions themselves.
    """
    leaves = jax.tree.leaves(target.center)
    center = np.concatenate([np.ravel(on_host(leaf)).astype(np.float64) for leaf in leaves])
    names = _names(target.center)
    flat = _flat_directions(hessian)
    candidates = np.abs(center) >= FAR
    if not len(flat) and np.any(candidates):
        candidates &= np.isin(names, _constrained(target))
    order = [k for k in np.argsort(-np.abs(center)) if candidates[k]]
    directions = [_unit(k, center.size) for k in order[:MOST_PROBES]]
    if len(flat):
        directions += [np.where(names == name, center, 0.0) for name in dict.fromkeys(names)]
        directions += list(flat)
    directions = [one for one in map(partial(_outward, center), directions) if one is not None]
    return _found(target, center, directions[: 2 * MOST_PROBES], names)


def _flat_directions(hessian: np.ndarray | None) -> np.ndarray:
    """Eigenvectors of small eigenvalues, ``[k, d]``; none where there is no Hessian."""
    if hessian is None or not np.all(np.isfinite(hessian)):
        return np.zeros((0, 0))
    values, vectors = np.linalg.eigh(hessian)
    return np.asarray(vectors[:, values < FLAT_DIRECTION].T)


def _unit(place: int, size: int) -> np.ndarray:
    one = np.zeros(size)
    one[place] = 1.0
    return one


def _outward(center: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
    """The direction of length 1 that leads away from zero, if the centre is far along it."""
    norm = np.linalg.norm(direction)
    if norm == 0:
        return None
    along = center @ direction / norm
    return np.sign(along) * direction / norm if abs(along) >= FAR else None


def _found(
    target: LocalTarget, center: np.ndarray, directions: list[np.ndarray], names: np.ndarray
) -> tuple[str, ...]:
    """The sites that the directions along which the loss never rises belong to, mostly."""
    found: dict[str, None] = {}
    for direction in directions:
        if any(names[k] in found for k in np.flatnonzero(direction)):
            continue
        along = jnp.asarray(direction, jnp.result_type(float))
        outward, inward = (on_host(x).astype(np.float64) for x in _losses_along(target, along))
        finite = np.r_[0.0, outward[np.isfinite(outward)]]
        falls = finite.size > 1 and np.all(np.diff(finite) <= TOLERANCE)
        at_end = abs(center @ direction) >= AT_THE_END
        # Where real parameters go on without any change, the loss is constant and has no edge.
        at_end &= np.any(outward != 0.0) or _is_constrained(target, direction, names)
        falls &= at_end or np.min(finite) < -TOLERANCE
        if falls and np.any(inward > TOLERANCE):
            shares = {name: np.sum(direction[names == name] ** 2) for name in dict.fromkeys(names)}
            found[str(max(shares, key=lambda name: shares[name]))] = None
    return tuple(found)


def _constrained(target: LocalTarget) -> tuple[str, ...]:
    return target.program.constrained(target.whole(target.center), shapes_of(target.arrays))


def _is_constrained(target: LocalTarget, direction: np.ndarray, names: np.ndarray) -> bool:
    return bool(np.any(np.isin(names[direction != 0.0], _constrained(target))))


def _names(center: Parameters) -> np.ndarray:
    """The site of each raveled coordinate, in the order of ``ravel_pytree``."""
    sizes = {k: sum(jnp.size(x) for x in jax.tree.leaves(tree)) for k, tree in center.items()}
    return np.repeat(sorted(sizes), [sizes[name] for name in sorted(sizes)])


@jax.jit
def _losses_along(target: LocalTarget, direction: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``nL - nL(z*)`` at the steps outward and inward."""
    center, unravel = ravel_pytree(target.center)
    along = center @ direction
    steps = jnp.concatenate([jnp.array(OUTWARD), -along * jnp.array(INWARD)])
    excess = jax.lax.map(lambda step: target.excess_loss(unravel(center + step * direction)), steps)
    return excess[: len(OUTWARD)], excess[len(OUTWARD) :]
