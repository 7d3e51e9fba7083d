"""``find_center``: a checked local minimum."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.initialization import init_to_sample, init_to_uniform

from numpyro_llc._checks import check_integer, check_key
from numpyro_llc.errors import going_with, warn
from numpyro_llc.local._curvature import curvature_at_center
from numpyro_llc.local._doubt import doubt_of
from numpyro_llc.local._localize import LocalizedModel
from numpyro_llc.local._notices import warn_before_search
from numpyro_llc.local._search import (
    Minimum,
    best_of,
    distances_from,
    losses_at,
    minima_of,
    minimize,
)
from numpyro_llc.local._slope import check_differentiable
from numpyro_llc.local._target import LocalTarget, make_target
from numpyro_llc.local._total_loss import total_loss
from numpyro_llc.models import (
    Arrays,
    Fields,
    Losses,
    Parameters,
    Program,
    PyTree,
    constrain,
    draw_starts,
    read_model,
)

_PRIOR_DRAW = init_to_sample()
_ANYWHERE = init_to_uniform()


@dataclass(frozen=True)
class Center:
    """A point that was found and checked.

    Attributes
    ----------
    params : dict
        Constrained value of each parameter site: what `center=` takes.
    loss : float
        ``nL`` there, summed over the data, in nats.
    gradient_norm : float
        Norm of the gradient of the objective in unconstrained space, nats.
    smallest_eigenvalue, largest_eigenvalue : float
        Of the Hessian of the objective in unconstrained space.
    converged : bool
        Whether it is a local minimum of the objective: what a Newton step could still gain is
        below 1e-3 nats, and no eigenvalue is negative beyond rounding.
    start : int
        Which start won.
    start_objectives : numpy.ndarray [num_starts]
        The objective each start ended at, less the best, in nats; NaN where one failed.
    minima : tuple of Minimum
        The different values among these, the best first, how many starts ended at each, and how
        far from the best. One value may be that of several points: of a mixture whose components
        change places, or of a valley.
    objective : str
        "mle" or "map".
    edge : tuple of str
        Sites along which the objective falls to the edge of their support, or to infinity.
    without_effect : tuple of str
        Parameters that the loss does not depend on, by name.
    """

    params: dict[str, PyTree]
    loss: float
    gradient_norm: float
    smallest_eigenvalue: float
    largest_eigenvalue: float
    converged: bool
    start: int
    start_objectives: np.ndarray
    minima: tuple[Minimum, ...]
    objective: str
    edge: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()


def find_center(
    rng_key: jax.Array,
    model: LocalizedModel | Callable,
    model_args: Sequence[object] = (),
    model_kwargs: Mapping[str, object] | None = None,
    *,
    objective: str = "mle",
    num_data: int | None = None,
    num_starts: int = 8,
    max_steps: int = 1000,
    init: Mapping[str, PyTree] | Center | Callable | None = None,
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
) -> Center:
    """Minimize the loss from several starts with L-BFGS (optax) and check the best point.

    Parameters
    ----------
    rng_key : jax.Array
        Draws the starts.
    model, model_args, model_kwargs
        A NumPyro model and its arguments, data included. Of what ``localize`` returned, the model
        is searched over all of its parameters, and the first start is its centre.
    objective : {"mle", "map"}
        "mle" minimizes ``nL``, whose minimum λ̂ is defined at. "map" adds the negative log prior
        density of the constrained parameters (no Jacobian), the mode that ``AutoDelta`` finds.
    num_data : int, optional
        n, as ``localize`` takes it. The search does not need it; where the model leaves it in
        doubt, a warning comes before the search.
    num_starts : int
        Each is a draw from the prior (uniform on (-2, 2) in unconstrained space where the prior
        cannot be sampled).
    max_steps : int
        Most L-BFGS steps of a start, in each of two rounds.
    init : dict, Center or callable, optional
        Constrained values of all parameter sites, the first start: a posterior mean of MCMC, the
        median of a guide. Or a NumPyro initialization strategy, which draws all starts.
    likelihood_factors, prior_factors : sequences of str
        What each ``numpyro.factor`` is.

    Returns
    -------
    Center

    Warns
    -----
    LLCWarning
        If the best point is no local minimum, with the numbers. Before the search: of parameters
        that the loss does not depend on, and of what ``estimate_llc`` will ask for.

    Raises
    ------
    NonFiniteLossError
        If every start ends at a non-finite loss.

    Notes
    -----
    The second round measures the loss from where the first ended, so that float32 resolves
    differences far below the loss itself. Params keep their initial values as starts.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpyro
    >>> import numpyro.distributions as dist
    >>> import numpyro_llc as nllc
    >>> def model(x, y):
    ...     w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("N", len(x)):
    ...         numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)
    >>> x = jnp.linspace(-1.0, 1.0, 100)
    >>> y = 2.0 * x + jnp.sin(30.0 * x)
    >>> center = nllc.find_center(jax.random.key(0), model, (x, y))
    >>> center.converged
    True
    >>> round(float(center.params["w"]), 2), round(float(x @ y / (x @ x)), 2)
    (1.95, 1.95)
    """
    check_key(rng_key)
    _check_arguments(objective, num_starts, max_steps)
    local = model if isinstance(model, LocalizedModel) else LocalizedModel(model, None)
    factors: Fields = {
        "likelihood_factors": likelihood_factors or local.likelihood_factors,
        "prior_factors": prior_factors or local.prior_factors,
    }
    arguments = (local.model, model_args, model_kwargs)
    reading = read_model(*arguments, center={}, init_strategy=_ANYWHERE, **factors)
    warn_before_search(reading, num_data)
    with_prior = reading.keyed_by_prior()
    program = reading.program if objective == "mle" else with_prior.with_prior()
    keys_starts, key_check = _keys(num_starts, rng_key)
    check_differentiable(_target_at(program, reading.arrays, reading.center))
    ends = draw_starts(
        with_prior,
        init if callable(init) else _PRIOR_DRAW,
        reading.arrays,
        keys_starts,
    )
    first = local.center if init is None or callable(init) else init
    if first is not None:
        here = _read_at(first, arguments, factors)
        ends = jax.tree.map(lambda leaf, own: leaf.at[0].set(own), ends, here)
    for _ in range(2):
        ends = minimize(program, max_steps, ends, reading.arrays)
    losses = losses_at(program, ends, reading.arrays)
    excess, best = best_of(losses, ends)
    target = _target_at(program, reading.arrays, _item(ends, best), _item(losses, best))
    found = curvature_at_center(target, key_check)
    doubt = doubt_of(found, target, objective)
    center = Center(
        params=constrain(
            reading.program, reading.program.parameters, target.center, reading.arrays
        ),
        loss=total_loss({name: target.center_losses[name] for name in reading.center_losses}),
        gradient_norm=found.gradient_norm,
        smallest_eigenvalue=found.smallest,
        largest_eigenvalue=found.largest,
        converged=not doubt,
        start=best,
        start_objectives=excess,
        minima=minima_of(excess, distances_from(ends, best), total_loss(target.center_losses)),
        objective=objective,
        edge=found.edge,
        without_effect=reading.without_effect,
    )
    return _told(center, doubt)


@partial(jax.jit, static_argnums=0)
def _keys(num_starts: int, rng_key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys of the starts, and of the check."""
    starts, check = jax.random.split(rng_key)
    return jax.random.split(starts, num_starts), check


def _read_at(point: Mapping[str, PyTree] | Center, arguments: tuple, factors: Fields) -> Parameters:
    """Unconstrained parameters of a point that the user gave."""
    values = point.params if isinstance(point, Center) else point
    try:
        return read_model(*arguments, center=values, **factors).center
    except (ValueError, TypeError) as error:
        raise type(error)(f"The values to start at are no point of the model. {error}") from None


def _check_arguments(objective: str, num_starts: int, max_steps: int) -> None:
    if objective not in ("mle", "map"):
        raise ValueError(f"`objective` must be 'mle' or 'map'; got {objective!r}.")
    check_integer("num_starts", num_starts, minimum=1, meaning="It counts optimizer runs.")
    check_integer("max_steps", max_steps, minimum=1, meaning="It counts L-BFGS steps.")


def _target_at(
    program: Program, arrays: Arrays, z: Parameters, losses: Losses | None = None
) -> LocalTarget:
    return make_target(
        program,
        arrays,
        z,
        inverse_temperature=1.0,
        localization=dict.fromkeys(z, 1.0),
        center_losses={} if losses is None else losses,
    )


def _item(tree: PyTree, index: int) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[index]), tree)


def _told(center: Center, doubt: str) -> Center:
    if doubt:
        with going_with(lambda: center):
            warn(doubt)
    return center
