"""Draws from unconstrained space: their losses, their constrained values, their log likelihood."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.local import (
    Evaluation,
    LocalizedModel,
    LocalTarget,
    excess_losses,
    is_differentiable,
    statistics_of_draws,
)
from numpyro_llc.models import ModelReading, Parameters, named_leaves, on_host
from numpyro_llc.sampling import Draws


@partial(jax.jit, static_argnums=0)
def constrained_draws(names: tuple[str, ...], z: Parameters, target: LocalTarget) -> Parameters:
    def one(z: Parameters) -> Parameters:
        return target.program.constrain(target.whole(z), target.arrays, names)

    return jax.vmap(jax.vmap(one))(z)


@partial(jax.jit, static_argnums=0)
def _evaluate(
    with_slope: bool, target: LocalTarget, z: Parameters
) -> tuple[Evaluation, dict[str, jax.Array]]:
    def one_draw(chains: Parameters) -> tuple[Evaluation, dict[str, jax.Array]]:
        found = excess_losses(target, chains, None, with_slope=with_slope)
        return found, jax.vmap(target.displacement)(chains) | statistics_of_draws(found)

    by_draw = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), z)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), jax.lax.map(one_draw, by_draw))


def evaluated(
    target: LocalTarget, positions: Parameters, statistics: dict[str, np.ndarray]
) -> Draws:
    """Unconstrained draws ``[chain, draw, ...]`` with their losses and distances."""
    with_slope = is_differentiable(target)
    seen, evaluated = jax.tree.map(np.asarray, _evaluate(with_slope, target, positions))
    excess, by_part, contrasts, slope, _ = (np.asarray(part, np.float64) for part in seen)
    if with_slope:
        evaluated["virial"] = float(target.inverse_temperature) * slope
    place = np.unravel_index(np.argmin(np.nan_to_num(excess, nan=np.inf)), excess.shape)
    lowest = float(excess[place]), jax.tree.map(lambda leaf: leaf[place], positions)
    return Draws(excess, by_part, contrasts, {**evaluated, **statistics}, positions, lowest)


@jax.jit
def _losses_of_chain_draws(target: LocalTarget, z: Parameters) -> dict[str, jax.Array]:
    return jax.vmap(target.losses)(z)


def check_log_likelihood(log_likelihood: bool, local: LocalizedModel) -> None:
    """Refuse the log likelihood of data that the draws know nothing of."""
    if log_likelihood and local.truth != "data":
        raise ValueError(
            f"`log_likelihood` is of the data, which draws with truth={local.truth!r} are not "
            "from. Leave it out, or localize with truth='data'."
        )


def log_likelihood_of(target: LocalTarget, positions: Parameters) -> dict[str, np.ndarray]:
    """``log p(x_i | z_t)``, float32 ``[chain, draw, n]``, evaluated a draw at a time."""
    num_draws = jax.tree.leaves(positions)[0].shape[1]
    parts = []
    for draw in range(num_draws):
        z = jax.tree.map(lambda leaf, t=draw: leaf[:, t], positions)
        losses = _losses_of_chain_draws(target, z)
        parts.append({name: -on_host(loss) for name, loss in losses.items()})
    return {name: np.stack([part[name] for part in parts], axis=1) for name in parts[0]}


def unconstrained_samples(
    reading: ModelReading, samples: Mapping[str, jax.Array | np.ndarray]
) -> Parameters:
    """Unconstrained parameters of constrained samples ``[chain, draw, ...]`` by site name."""
    named = named_leaves(dict(sorted(reading.center.items())))  # the order of a dict's leaves
    missing = [name for name in named if name not in samples]
    if missing:
        raise ValueError(f"The run holds no samples of {missing}; do not exclude sites from it.")
    leaves = [jnp.asarray(samples[name]) for name in named]
    given = jax.tree.unflatten(jax.tree.structure(reading.center), leaves)
    return reading.unconstrain(given)
