"""The Kullback-Leibler divergence of one distribution from another of its kind, datum by datum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike
from numpyro import distributions as dist
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.transforms import Transform

from numpyro_llc.models._loss import NegativeLoss
from numpyro_llc.models._precision import unrounded
from numpyro_llc.models._types import PyTree

NEARLY_ZERO = 0.1
"""Below it ``e^x - 1 - x`` is summed as a series, whose 9 terms are exact in float64."""
NO_PROBABILITY = -80.0
"""Log of a probability that counts as zero: e^80 is a number in float32, e^90 is none."""
MOST_STATES = 1024
"""Most states of a finite support that are summed over, rather than drawn from."""


@jax.custom_jvp
def excess_exponential(x: jax.Array) -> jax.Array:
    """``e^x - 1 - x``: at least 0, and accurate where it is about ``x²/2``."""
    small = jnp.where(jnp.abs(x) < NEARLY_ZERO, x, 0.0)
    series = jnp.ones_like(small)
    for k in range(10, 2, -1):
        series = 1.0 + series * small / k
    return jnp.where(jnp.abs(x) < NEARLY_ZERO, 0.5 * small**2 * series, jnp.expm1(x) - x)


@excess_exponential.defjvp
def _excess_exponential_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return excess_exponential(x), jnp.expm1(x) * tangent


@unrounded
def divergence(
    p: dist.Distribution, q: dist.Distribution, draws: jax.Array | None = None
) -> jax.Array:
    r"""``KL(p ‖ q)`` of two distributions that a model gives at two points, ``[*batch_shape]``.

    In nats. Exactly 0, with a gradient of exactly 0, where all parameters of `q` are those of `p`.

    Parameters
    ----------
    p, q : numpyro.distributions.Distribution
        Of the same type and shape.
    draws : array [draw, *batch_shape, *event_shape], optional
        Draws from `p`, where :func:`is_known` says False. Then it is the mean over them of
        ``e^r - 1 - r``, ``r = log q(y) - log p(y)``: unbiased, for E[e^r] is 1, and never negative,
        so that ``q = p`` is its minimum for any draws.
    """
    if isinstance(q, dist.MaskedDistribution):
        return jnp.where(q._mask, divergence(p.base_dist, q.base_dist, draws), 0.0)
    if isinstance(q, dist.Independent):
        inner = divergence(p.base_dist, q.base_dist, draws)
        return inner.sum(axis=tuple(range(-q.reinterpreted_batch_ndims, 0)))
    found = _known(p, q)
    if found is not None:
        return found
    if draws is None:
        raise ValueError(f"KL of {type(q).__name__} is not known in closed form: it takes draws.")
    return jnp.mean(excess_exponential(q.log_prob(draws) - p.log_prob(draws)), axis=0)


def is_known(fn: dist.Distribution) -> bool:
    """Whether the divergence is a closed form or a finite sum, so that it takes no draws."""
    while isinstance(fn, dist.MaskedDistribution | dist.Independent):
        fn = fn.base_dist
    return _known(fn, fn) is not None


def _known(p: dist.Distribution, q: dist.Distribution) -> jax.Array | None:
    """The divergence, if it is a closed form or a finite sum."""
    if type(p) is type(q) and type(q) in CLOSED_FORMS:
        return jnp.broadcast_to(CLOSED_FORMS[type(q)](p, q), q.batch_shape)
    if isinstance(q, dist.ExpandedDistribution | dist.TransformedDistribution):
        pairs = zip(getattr(p, "transforms", ()), getattr(q, "transforms", ()), strict=True)
        if not all(_is_same(*pair) for pair in pairs) or not is_known(q.base_dist):
            return None
        return jnp.broadcast_to(divergence(p.base_dist, q.base_dist), q.batch_shape)
    if (type(p), type(q)) in kl_divergence.funcs:  # NumPyro's own, or one that a user registered
        return jnp.broadcast_to(kl_divergence(p, q), q.batch_shape)
    return _finite_sum(p, q)


def _is_same(one: Transform, two: Transform) -> bool:
    """Whether two transforms are the same, whatever the parameters of the model."""
    forms: list[PyTree] = [jax.tree.structure(x) for x in (one, two)]
    if type(one) is not type(two) or forms[0] != forms[1]:
        return False
    return all(map(_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


def _equal(one: ArrayLike, two: ArrayLike) -> bool:
    if isinstance(one, jax.core.Tracer) or isinstance(two, jax.core.Tracer):
        return one is two
    return np.array_equal(one, two)


def _finite_sum(p: dist.Distribution, q: dist.Distribution) -> jax.Array | None:
    if not q.has_enumerate_support or q.event_dim:
        return None
    try:
        with jax.ensure_compile_time_eval():
            states = q.enumerate_support(expand=False)
    except (NotImplementedError, jax.errors.JAXTypeError):
        return None
    if len(states) > MOST_STATES:
        return None
    return jnp.sum(_terms(p.log_prob(states), q.log_prob(states)), axis=0)


def _terms(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """``p (log p - log q) - p + q`` of probabilities: each at least 0, their sum is KL."""
    is_some = log_p > NO_PROBABILITY
    ratio = jnp.where(is_some, log_q - jnp.where(is_some, log_p, 0.0), 0.0)
    return jnp.where(is_some, jnp.exp(log_p) * excess_exponential(ratio), jnp.exp(log_q))


def _log_ratio(one: jax.Array, two: jax.Array) -> jax.Array:
    return jnp.log(one) - jnp.log(two)


def _normal(p: dist.Normal, q: dist.Normal) -> jax.Array:
    shift = (p.loc - q.loc) / q.scale
    return 0.5 * (excess_exponential(2.0 * _log_ratio(p.scale, q.scale)) + shift**2)


def _multivariate_normal(p: dist.MultivariateNormal, q: dist.MultivariateNormal) -> jax.Array:
    """``½ (tr M Mᵀ - d - log det M Mᵀ + |L_q⁻¹ (μ_p - μ_q)|²)`` with ``M = L_q⁻¹ L_p``."""
    shape = jnp.broadcast_shapes(p.batch_shape, q.batch_shape)
    one, two = (jnp.broadcast_to(x.scale_tril, (*shape, *x.event_shape * 2)) for x in (p, q))
    shift = jnp.broadcast_to(p.loc - q.loc, (*shape, *q.event_shape))[..., None]
    ratio = solve_triangular(two, jnp.concatenate([one, shift], axis=-1), lower=True)
    below = jnp.tril(ratio[..., :-1], -1)
    diagonals = (jnp.diagonal(x, axis1=-2, axis2=-1) for x in (one, two))
    return 0.5 * (
        jnp.sum(below**2, axis=(-2, -1))
        + jnp.sum(excess_exponential(2.0 * _log_ratio(*diagonals)), axis=-1)
        + jnp.sum(ratio[..., -1] ** 2, axis=-1)
    )


def _laplace(p: dist.Laplace, q: dist.Laplace) -> jax.Array:
    far = jnp.abs(p.loc - q.loc) / p.scale
    return excess_exponential(_log_ratio(p.scale, q.scale)) + p.scale / q.scale * (
        excess_exponential(-far)
    )


def _exponential(p: dist.Exponential, q: dist.Exponential) -> jax.Array:
    return excess_exponential(_log_ratio(q.rate, p.rate))


def _half_normal(p: dist.HalfNormal, q: dist.HalfNormal) -> jax.Array:
    return 0.5 * excess_exponential(2.0 * _log_ratio(p.scale, q.scale))


def _poisson(p: dist.Poisson, q: dist.Poisson) -> jax.Array:
    return _terms(jnp.log(p.rate), jnp.log(q.rate))


def _two_states(p: dist.Distribution, q: dist.Distribution) -> jax.Array:
    """Of one trial that succeeds or fails."""
    log_p, log_q = (jax.nn.log_sigmoid(jnp.stack([x.logits, -x.logits])) for x in (p, q))
    return jnp.sum(_terms(log_p, log_q), axis=0)


def _categories(p: dist.Distribution, q: dist.Distribution) -> jax.Array:
    log_p, log_q = (jax.nn.log_softmax(x.logits, axis=-1) for x in (p, q))
    return jnp.sum(_terms(log_p, log_q), axis=-1)


def _trials(of_one: Callable) -> Callable:
    def of_all(p: dist.Distribution, q: dist.Distribution) -> jax.Array:
        return q.total_count * of_one(p, q)

    return of_all


def _failures(p: dist.Distribution, q: dist.Distribution) -> jax.Array:
    """Of the number of failures before the first success: ``1/p_1`` trials on average."""
    return _two_states(p, q) * (1.0 + jnp.exp(-p.logits))


def _of_loss(p: NegativeLoss, q: NegativeLoss) -> jax.Array:
    return q.divergence_from(p)


CLOSED_FORMS: dict[type, Callable] = {
    dist.Normal: _normal,
    dist.MultivariateNormal: _multivariate_normal,
    dist.Laplace: _laplace,
    dist.Exponential: _exponential,
    dist.HalfNormal: _half_normal,
    dist.Poisson: _poisson,
    dist.BernoulliProbs: _two_states,
    dist.BernoulliLogits: _two_states,
    dist.CategoricalProbs: _categories,
    dist.CategoricalLogits: _categories,
    dist.BinomialProbs: _trials(_two_states),
    dist.BinomialLogits: _trials(_two_states),
    dist.MultinomialProbs: _trials(_categories),
    dist.MultinomialLogits: _trials(_categories),
    dist.GeometricProbs: _failures,
    dist.GeometricLogits: _failures,
    NegativeLoss: _of_loss,
}
"""By the type and no subclass of it, which may have another density."""
