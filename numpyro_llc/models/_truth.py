"""The model's own distributions at a centre, as the truth that losses are measured against."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from numpyro_llc.models import _data, _rules
from numpyro_llc.models._convolutions import where_slow_by_products
from numpyro_llc.models._divergence import divergence, is_known
from numpyro_llc.models._loss import NegativeLoss
from numpyro_llc.models._plates import Batch, Rows, batch_of
from numpyro_llc.models._program import Program
from numpyro_llc.models._sources import shapes_of, sources_of
from numpyro_llc.models._types import Arrays, Losses, Parameters, Site, Trace

DRAW_PARTS = 8
"""Parts of the draws from the truth, whose disagreement tells their error."""
DRAWS_IN_ALL, MOST_DRAWS = 16_384, 1024
"""Draws from the truth over all data, and the most of one datum. A mean of ``r²/2`` over them, r
normal, is known to 1.1 %, and λ̂, which a factor of the loss hardly changes, to less."""
DRAW_SEED = 0
"""Of the draws. No key of the user's: they are part of the density, which no key may change."""
_NEEDS_DRAWS = (
    "`truth='center'` needs draws for each datum of %r, which has no divergence in closed form: "
    "pass np.asarray(...) of data that lie on disk, or use truth='data'."
)


class Truth(NamedTuple):
    """What losses are measured against: the model's distributions at a centre.

    Attributes
    ----------
    center : dict
        All unconstrained parameters there.
    draws : dict of str to array
        ``[draw, *batch_shape, *event_shape]`` of the observed sites whose divergence is not known
        in closed form.
    """

    center: Parameters
    draws: dict[str, jax.Array]


def make_truth(program: Program, center: Parameters, arrays: Arrays) -> Truth:
    """The truth at `center`.

    Raises
    ------
    ValueError
        By name for an observed site that is no distribution, or one that cannot be drawn from.
    """
    if program.enumeration is not None and (covered := _covered(program)):
        raise ValueError(
            f"`truth='center'` is not defined for observed sites {covered}, which depend on "
            "discrete latent sites that are summed out. Write each as one distribution, such as "
            "dist.MixtureSameFamily; or use truth='data'."
        )
    problems: list[str] = []
    is_elsewhere = bool(sources_of(arrays))

    def look(center: Parameters, arrays: Arrays) -> None:
        sites = program.observed_sites(center, arrays)
        problems.extend(filter(None, (_problem(name, sites[name]) for name in sites)))
        if is_elsewhere:
            problems.extend(_NEEDS_DRAWS % k for k in sites if not is_known(sites[k]["fn"]))

    jax.eval_shape(look, center, shapes_of(arrays))
    if problems:
        raise ValueError(" ".join(problems))
    if is_elsewhere:
        return Truth(center, {})
    return Truth(center, _draws(program, center, arrays))


def loss_function(
    program: Program, arrays: Sequence[jax.Array], truth: Truth | None
) -> Callable[[Parameters], Losses]:
    """From z to per-datum losses in nats, of the data (None) or against a truth."""
    if truth is None:
        return lambda z: program.losses(z, arrays)
    return divergences(program, truth, arrays)


def row_loss_function(
    program: Program, arrays: Sequence[jax.Array], truth: Truth | None, rows: Rows
) -> Callable[[Parameters], jax.Array]:
    """The same of each of `rows`, ``[len(rows)]``; those of sources are read once for all z."""
    batch = batch_of(arrays, rows)
    if truth is None:
        return lambda z: program.row_losses(z, arrays, batch)
    against = divergences(program, truth, arrays, batch)
    return lambda z: program.by_row(against(z), len(rows))


def divergences(
    program: Program, truth: Truth, arrays: Sequence[jax.Array], rows: Rows | None = None
) -> Callable[[Parameters], Losses]:
    """From z to ``KL(p(·|x_i, z*) ‖ p(·|x_i, z))`` in nats, of all data or `rows`.

    The truth is evaluated here, once for all z.
    """
    there, draws = _at_center(program, truth, arrays, rows)

    def at(z: Parameters) -> Losses:
        here = program.observed_sites(z, arrays, rows)
        return {k: site_divergence(there[k], site, draws.get(k)) for k, site in here.items()}

    return where_slow_by_products(program, at)


def divergence_parts(
    program: Program, truth: Truth, arrays: Sequence[jax.Array], rows: Rows | None = None
) -> Callable[[Parameters], Losses]:
    """As :func:`divergences`, ``[DRAW_PARTS, ...]`` from a part of the draws each.

    Of the sites that have draws alone.
    """
    there, draws = _at_center(program, truth, arrays, rows)
    parts = {k: x.reshape(DRAW_PARTS, -1, *x.shape[1:]) for k, x in draws.items()}

    def at(z: Parameters) -> Losses:
        here = program.observed_sites(z, arrays, rows)
        return {
            k: jax.vmap(partial(site_divergence, there[k], here[k]))(x) for k, x in parts.items()
        }

    return where_slow_by_products(program, at)


def site_divergence(truth: Site, site: Site, draws: jax.Array | None = None) -> jax.Array:
    """KL of an observed site, one value per datum; a user's ``handlers.scale`` counts."""
    kl = divergence(truth["fn"], site["fn"], draws)
    kl = jnp.broadcast_to(kl, _data.data_axes(site).shape)
    kl = kl.astype(jnp.promote_types(kl.dtype, jnp.float32))
    return kl if site["scale"] is None else site["scale"] * kl


def _covered(program: Program) -> list[str]:
    return [name for name in program.likelihood if name not in program.plain(program.likelihood)]


def _problem(name: str, site: Site) -> str | None:
    """Why a site has no divergence; None if it has."""
    fn = _rules.unwrap(site["fn"])
    if isinstance(fn, dist.Unit):
        return (
            f"`truth='center'` needs a distribution of each datum, and {name!r} is a factor. Write "
            "it as numpyro.sample(..., obs=...) of a distribution, or all of the likelihood as "
            "numpyro_llc.loss_model with a `divergence`; or use truth='data'."
        )
    if isinstance(fn, NegativeLoss) and fn.divergence is None:
        return (
            "`truth='center'` needs the divergence of a model of losses: pass "
            "loss_model(losses, params, divergence=...); or use truth='data'."
        )
    return None


@partial(jax.jit, static_argnums=0)
def _draws(program: Program, center: Parameters, arrays: Arrays) -> dict[str, jax.Array]:
    """Draws of the sites that need them, a key for each."""
    found = {}
    for place, (name, site) in enumerate(program.observed_sites(center, arrays).items()):
        if is_known(site["fn"]):
            continue
        shape, key = _data.data_axes(site).shape, jax.random.key(DRAW_SEED)
        parts = min(-(-DRAWS_IN_ALL // (DRAW_PARTS * math.prod(shape))), MOST_DRAWS // DRAW_PARTS)
        try:
            found[name] = (
                site["fn"]
                .expand(shape)
                .sample(jax.random.fold_in(key, place), (max(parts, 1) * DRAW_PARTS,))
            )
        except NotImplementedError:
            kind = type(_rules.unwrap(site["fn"])).__name__
            raise ValueError(
                f"`truth='center'` needs draws from observed site {name!r}, and {kind} has no "
                "`sample`. Give it one; or register its divergence with "
                "numpyro.distributions.kl.kl_divergence; or use truth='data'."
            ) from None
    return found


def _at_center(
    program: Program, truth: Truth, arrays: Sequence[jax.Array], rows: Rows | None
) -> tuple[Trace, dict[str, jax.Array]]:
    """The observed sites at the centre and the draws from them, of all data or `rows`."""
    sites = program.observed_sites(truth.center, arrays, rows)
    if rows is None or not truth.draws:
        return sites, truth.draws
    axes = dict(program.require_batching().site_axes)
    numbers = rows.numbers if isinstance(rows, Batch) else rows
    return sites, {
        name: jnp.take(array, numbers, axis=axes[name] - sites[name]["fn"].event_dim)
        for name, array in truth.draws.items()
    }
