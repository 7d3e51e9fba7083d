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
from numpyro_llc.models._kept import Distributions, Kept, distributions_at, put_together
from numpyro_llc.models._loss import NegativeLoss
from numpyro_llc.models._plates import Rows, batch_of
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
    draws : dict of str to Kept
        ``[draw, *batch_shape, *event_shape]`` of the observed sites whose divergence is not known
        in closed form.
    distributions : dict of str to tuple, or None
        Their parameters there, of all data; None where they are evaluated with each batch.
    """

    center: Parameters
    draws: dict[str, Kept]
    distributions: Distributions | None


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
    if sources_of(arrays) or (program.batching is not None and program.batching.stream_rows):
        jax.eval_shape(partial(_check_elsewhere, program), center, shapes_of(arrays))
        return Truth(center, {}, None)
    return Truth(center, *_at_center(program, center, arrays))


def _check_elsewhere(program: Program, center: Parameters, arrays: Arrays) -> None:
    """Refuse sites that have no divergence without draws of all data."""
    sites = program.observed_sites(center, arrays)
    problems = [problem for name in sites if (problem := _problem(name, sites[name]))]
    problems += [_NEEDS_DRAWS % name for name in sites if not is_known(sites[name]["fn"])]
    if problems:
        raise ValueError(" ".join(problems))


@partial(jax.jit, static_argnums=0)
def _at_center(
    program: Program, center: Parameters, arrays: Arrays
) -> tuple[dict[str, Kept], Distributions | None]:
    """Draws of the sites that need them, and the distributions if they are to be kept."""
    sites = program.observed_sites(center, arrays)
    if problems := [problem for name in sites if (problem := _problem(name, sites[name]))]:
        raise ValueError(" ".join(problems))
    axes = {} if program.batching is None else dict(program.batching.site_axes)
    rows = {name: axes[name] - sites[name]["fn"].event_dim if axes else None for name in sites}
    draws = {name: Kept.all_of(program, x, rows[name]) for name, x in _draws(sites).items()}
    return draws, distributions_at(program, center, arrays, sites)


def loss_function(
    program: Program,
    arrays: Sequence[jax.Array],
    truth: Truth | None,
    *,
    by_part: bool = False,
) -> Callable[[Parameters], Losses]:
    """From z to per-datum losses in nats, of the data (None) or against a truth.

    `by_part` as in :func:`divergences`.
    """
    if truth is None:
        return lambda z: program.losses(z, arrays)
    return divergences(program, truth, arrays, by_part=by_part)


def row_loss_function(
    program: Program,
    arrays: Sequence[jax.Array],
    truth: Truth | None,
    rows: Rows,
    *,
    by_part: bool = False,
) -> Callable[[Parameters], jax.Array]:
    """The same of each of `rows`, ``[len(rows)]``, or ``[DRAW_PARTS, len(rows)]``.

    Those of sources are read once for all z.
    """
    batch = batch_of(arrays, rows)
    if truth is None:
        return lambda z: program.row_losses(z, arrays, batch)
    against = divergences(program, truth, arrays, batch, by_part=by_part)
    by_row = partial(program.by_row, count=len(rows))
    return lambda z: jax.vmap(by_row)(against(z)) if by_part else by_row(against(z))


def divergences(
    program: Program,
    truth: Truth,
    arrays: Sequence[jax.Array],
    rows: Rows | None = None,
    *,
    by_part: bool = False,
) -> Callable[[Parameters], Losses]:
    """From z to ``KL(p(·|x_i, z*) ‖ p(·|x_i, z))`` in nats, of all data or `rows`.

    The truth is taken here, once for all z. With `by_part` from a part of the draws each,
    ``[DRAW_PARTS, ...]``; those of sites without draws are the same in all.
    """
    there = center_distributions(program, truth, arrays, rows)
    draws = {name: kept.of(program, rows) for name, kept in truth.draws.items()}
    parts = {k: x.reshape(DRAW_PARTS, -1, *x.shape[1:]) for k, x in draws.items()}

    def loss(name: str, site: Site) -> jax.Array:
        at = partial(site_divergence, there(name, site["fn"]), site)
        if not by_part:
            return at(draws.get(name))
        if name in parts:
            return jax.vmap(at)(parts[name])
        one = at()
        return jnp.broadcast_to(one, (DRAW_PARTS, *one.shape))

    def at(z: Parameters) -> Losses:
        here = program.observed_sites(z, arrays, rows)
        return {name: loss(name, site) for name, site in here.items()}

    return where_slow_by_products(program, at)


def center_distributions(
    program: Program, truth: Truth, arrays: Sequence[jax.Array], rows: Rows | None = None
) -> Callable[[str, dist.Distribution], dist.Distribution]:
    """From a site and its distribution at some z to that at the centre, of all data or `rows`."""
    if truth.distributions is None:
        sites = program.observed_sites(truth.center, arrays, rows)
        return lambda name, _: sites[name]["fn"]
    leaves = {
        name: tuple(leaf if leaf is None else leaf.of(program, rows) for leaf in kept)
        for name, kept in truth.distributions.items()
    }
    return lambda name, here: put_together(leaves[name], here)


def site_divergence(
    truth: dist.Distribution, site: Site, draws: jax.Array | None = None
) -> jax.Array:
    """KL of an observed site, one value per datum; a user's ``handlers.scale`` counts."""
    kl = divergence(truth, site["fn"], draws)
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


def _draws(sites: Trace) -> dict[str, jax.Array]:
    """Draws of the sites that need them, a key for each."""
    found = {}
    for place, (name, site) in enumerate(sites.items()):
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
