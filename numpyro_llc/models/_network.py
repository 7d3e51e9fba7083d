"""``network_model``: a NumPyro model from an apply function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist

from numpyro_llc._checks import check_positive

LIKELIHOODS: dict[str, Callable[..., dist.Distribution]] = {
    "normal": lambda outputs, scale: dist.Normal(outputs, scale),
    "categorical": lambda outputs, scale: dist.Categorical(logits=outputs),
    "bernoulli": lambda outputs, scale: dist.Bernoulli(logits=outputs),
}


@dataclass(frozen=True)
class NetworkModel:
    """What :func:`network_model` returns: a NumPyro model of ``(x, y)``.

    Two of the same function, structure and likelihood are equal, so that they share compiled code.
    """

    apply: Callable[[Any, Any], jax.Array]
    form: Any
    shapes: tuple[tuple[int, ...], ...]
    likelihood: str | Callable[[jax.Array], dist.Distribution]
    scale: float

    def __call__(self, x: Any, y: Any) -> None:
        """Observe `y` [n, ...], given inputs `x`, whose arrays have n rows."""
        initial = jax.tree.unflatten(self.form, [jnp.zeros(shape) for shape in self.shapes])
        params = numpyro.param("params", initial)
        kind = jnp.result_type(y)
        if self.likelihood == "categorical" and not jnp.issubdtype(kind, jnp.integer):
            raise TypeError(
                f"`y` must hold the numbers of classes as integers under 'categorical'; got {kind}."
                " Use y.astype(int)."
            )
        with numpyro.plate("data", len(y)):
            outputs = self.apply(params, x)
            noise = (
                LIKELIHOODS[self.likelihood](outputs, self.scale)
                if isinstance(self.likelihood, str)
                else self.likelihood(outputs)
            )
            noise = noise.to_event(len(noise.batch_shape) - 1)
            if tuple(noise.shape()) != jnp.shape(y):
                raise ValueError(
                    f"`apply` gives outputs of shape {outputs.shape}, which makes data of shape "
                    f"{noise.shape()}; `y` has shape {jnp.shape(y)}. Reshape one."
                )
            numpyro.sample("y", noise, obs=y)


def network_model(
    apply: Callable[[Any, Any], jax.Array],
    params: Any,
    likelihood: str | Callable[[jax.Array], dist.Distribution] = "normal",
    *,
    scale: float = 1.0,
) -> NetworkModel:
    """Make a NumPyro model of ``(x, y)`` from a network, with all parameters in one site.

    Parameters
    ----------
    apply : callable
        ``apply(params, x) -> outputs [n, ...]``, deterministic, each row of the outputs a function
        of that row of `x` alone. One function object for all calls: it is a key of compiled code.
    params : pytree
        Parameters of the structure that `apply` takes; only their shapes are used. The centre is
        ``center={"params": params}``.
    likelihood : {"normal", "categorical", "bernoulli"} or callable
        Of `y` given the outputs: Normal of mean outputs and standard deviation `scale`;
        Categorical of logits ``[n, classes]``; Bernoulli of logits; or a function from outputs to a
        NumPyro distribution of batch shape ``[n, ...]``, whose axes after the first are made one
        event.
    scale : float
        Standard deviation of "normal".

    Returns
    -------
    NetworkModel
        A model with the param site ``params``, the plate ``data`` and the observed site ``y``.

    Raises
    ------
    ValueError, TypeError
        For an unknown likelihood, and when the model is read, for outputs that do not fit `y`.
    """
    if isinstance(likelihood, str) and likelihood not in LIKELIHOODS:
        raise ValueError(f"`likelihood` must be one of {list(LIKELIHOODS)}; got {likelihood!r}.")
    if not callable(apply) or not (isinstance(likelihood, str) or callable(likelihood)):
        raise TypeError(
            "`apply` must be a function of (params, x), and `likelihood` a name or a function of "
            f"the outputs; got {type(apply).__name__} and {type(likelihood).__name__}."
        )
    check_positive("scale", scale, meaning="It is the standard deviation of the noise.")
    leaves, form = jax.tree.flatten(params)
    shapes = tuple(tuple(jnp.shape(leaf)) for leaf in leaves)
    return NetworkModel(apply, form, shapes, likelihood, float(scale))
