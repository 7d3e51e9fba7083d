"""``Draws``, what a run keeps, and how the draws of one chunk are written to its folder."""

from dataclasses import dataclass

import jax
import numpy as np

from numpyro_llc.models import Parameters
from numpyro_llc.sampling._compiled import Seen
from numpyro_llc.sampling._files import Arrays

_POSITION = "z "


@dataclass(frozen=True)
class Draws:
    """What a run kept, chain axis first: ``[chain, draw, ...]`` NumPy arrays.

    Attributes
    ----------
    excess_loss : float array [chain, draw]
        ``nL(z_t) - nL(z*)`` in nats.
    by_part : float array [chain, draw, part]
        The same by parts of the rows it was evaluated on, if these are not all; else one part.
    contrasts : float array [chain, draw, k]
        Differences of the losses of the data, with random signs.
    statistics : dict of str to array [chain, draw]
    positions : dict
        Unconstrained parameters of the sites that were asked for.
    lowest : float and dict
        ``nL(z) - nL(z*)`` of the lowest point, at most 0, and its unconstrained parameters.
    """

    excess_loss: np.ndarray
    by_part: np.ndarray
    contrasts: np.ndarray
    statistics: dict[str, np.ndarray]
    positions: Parameters
    lowest: tuple[float, Parameters | None]


class NonFiniteDraw(Exception):  # noqa: N818
    """The loss of a chain is not finite: the run stops, with that draw as its last."""


def flat(chunk: Seen) -> Arrays:
    """A chunk as a flat dict of arrays ``[chain, draw, ...]``."""
    arrays = {name: array for name, array in chunk.items() if name != "z"}
    for k, leaf in enumerate(jax.tree.leaves(chunk.get("z", {}))):
        arrays[f"{_POSITION}{k:06d}"] = leaf
    return arrays


def chunk_of(arrays: Arrays, form: jax.tree_util.PyTreeDef) -> Seen:
    """The inverse of :func:`flat`; `form` is the structure of the positions."""
    leaves = [arrays[name] for name in arrays if name.startswith(_POSITION)]
    chunk = {name: arrays[name] for name in arrays if not name.startswith(_POSITION)}
    return {**chunk, "z": jax.tree.unflatten(form, leaves)} if arrays else {}
