"""As many random deep linear networks as wanted."""

from collections.abc import Iterator

import jax
import numpy as np

from numpyro_llc._checks import check_integer, check_key, check_truth
from numpyro_llc.known.exact.values import check_integers
from numpyro_llc.known.zoo._layers import generator
from numpyro_llc.known.zoo._linear_networks import deep_linear_network
from numpyro_llc.known.zoo._problem import Problem


def random_deep_linear_networks(
    key_or_seed: jax.Array | int,
    count: int,
    *,
    layers: tuple[int, int] = (2, 5),
    widths: tuple[int, int] = (5, 50),
    num_data: int = 1_000_000,
    aligned: bool = True,
) -> Iterator[Problem]:
    """Random deep linear networks, one after the other.

    Parameters
    ----------
    key_or_seed : jax.Array or int
        The same one gives the same networks.
    count : int
        How many.
    layers, widths : tuple of int
        Range ``[low, high)`` of the number of layers and of each width, uniform. Lau, Furman,
        Wang, Murfet and Wei (2023), arXiv:2308.12108, have (2, 5) and (5, 50) for their smallest
        networks, of the order of 1000 parameters; (2, 10) and (5, 100) for 10 000; (2, 10) and
        (50, 500) for 100 000.
    num_data : int
        n.
    aligned : bool
        As in :func:`deep_linear_network`.

    Yields
    ------
    Problem
        With a rank uniform from 0 to the smallest width, both included.
    """
    count = check_integer("count", count, minimum=0, meaning="It is the number of networks.")
    _check_range("layers", layers, minimum=2)
    _check_range("widths", widths, minimum=1)
    check_truth("aligned", aligned)
    rng = _generator(key_or_seed)
    return (_draw(rng, layers, widths, num_data, aligned) for _ in range(count))


def _draw(
    rng: np.random.Generator,
    layers: tuple[int, int],
    widths: tuple[int, int],
    num_data: int,
    aligned: bool,
) -> Problem:
    chosen = [int(width) for width in rng.integers(*widths, size=rng.integers(*layers) + 1)]
    rank = int(rng.integers(min(chosen) + 1))
    return deep_linear_network(chosen, rank, num_data=num_data, seed=rng, aligned=aligned)


def _check_range(name: str, given: tuple[int, int], *, minimum: int) -> None:
    low, high = check_integers(name, given, minimum=0, meaning="It is [low, high).", length=2)
    check_integer(name, low, minimum=minimum, meaning="It is the low end of [low, high).")
    check_integer(name, high, minimum=low + 1, meaning="It is the high end of [low, high).")


def _generator(key_or_seed: jax.Array | int) -> np.random.Generator:
    if isinstance(key_or_seed, (int, np.integer)) and not isinstance(key_or_seed, bool):
        return generator("key_or_seed", int(key_or_seed))
    return np.random.default_rng(np.asarray(jax.random.key_data(check_key(key_or_seed))))
