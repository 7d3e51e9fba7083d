"""``network_model``: a NumPyro model from an apply function."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist

from numpyro_llc._checks import check_positive
from numpyro_llc.models._form import Form, form_of
from numpyro_llc.models._modules import called, check_is_function
from numpyro_llc.models._types import PyTree

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

    apply: Callable[[PyTree, PyTree], jax.Array]
    form: Form
    likelihood: str | Callable[[jax.Array], dist.Distribution]
    scale: float

    def __call__(self, x: PyTree, y: jax.Array) -> None:
        """Observe `y` [n, ...], given inputs `x`, whose arrays have n rows."""
        self._check_data(y)
        params = self.form.filled()
        with numpyro.plate("data", len(y)):
            outputs = called("apply", self.apply, params, x)
            if not isinstance(outputs, jax.Array):
                raise TypeError(
                    f"`apply` must return one array of outputs; got {type(outputs).__name__}."
                )
            noise = self._noise(outputs)
            noise = noise.to_event(len(noise.batch_shape) - 1)
            if tuple(noise.shape()) != jnp.shape(y):
                raise ValueError(
                    f"`apply` gives outputs of shape {outputs.shape}, which makes data of shape "
                    f"{noise.shape()}; `y` has shape {jnp.shape(y)}. Reshape one."
                )
            numpyro.sample("y", noise, obs=y)

    def _check_data(self, y: object) -> None:
        if not isinstance(y, jax.Array | np.ndarray) or y.ndim == 0:
            raise TypeError(
                f"`y` must be an array with a row for each datum; got {type(y).__name__}. Pass the "
                "data in `model_args` as (x, y)."
            )
        if self.likelihood == "categorical" and not jnp.issubdtype(y.dtype, jnp.integer):
            raise TypeError(
                "`y` must hold the numbers of classes as integers under 'categorical'; got "
                f"{y.dtype}. Use y.astype(int)."
            )

    def _noise(self, outputs: jax.Array) -> dist.Distribution:
        if isinstance(self.likelihood, str):
            return LIKELIHOODS[self.likelihood](outputs, self.scale)
        noise = self.likelihood(outputs)
        if not isinstance(noise, dist.Distribution):
            raise TypeError(
                "`likelihood` must return a NumPyro distribution of the outputs; got "
                f"{type(noise).__name__}."
            )
        return noise


def network_model(
    apply: Callable[[PyTree, PyTree], jax.Array],
    params: PyTree,
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
        Parameters as `apply` takes them: of floats; ``{"params": ...}`` of a Linen module, without
        its other collections; an ``nnx.State`` of parameters; an Equinox module, whose other leaves
        stay as they are. Only structure and shapes are used. The centre is
        ``center={"params": params}``, of this or other parameters of the same structure.
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
        For an unknown likelihood, for `params` that are no floats; and when the model is read, for
        outputs that do not fit `y`, or that depend on other rows than their own (batch norm).

    Examples
    --------
    Of a network with three tanh units, at the point that computes nothing:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpyro_llc as nllc
    >>> def apply(params, x):
    ...     return jnp.tanh(x @ params["first"]) @ params["last"]
    >>> params = {"first": jnp.zeros((1, 3)), "last": jnp.zeros(3)}
    >>> x, y = jnp.linspace(-1.0, 1.0, 200)[:, None], jnp.zeros(200)
    >>> idata = nllc.estimate_llc(
    ...     jax.random.key(0),
    ...     nllc.network_model(apply, params),
    ...     (x, y),
    ...     center={"params": params},
    ...     progress_bar=False,
    ... )
    >>> idata.attrs["num_parameters"], bool(nllc.summary(idata).loc["llc", "mean"] < 1.0)
    (6, True)
    """
    if isinstance(likelihood, str) and likelihood not in LIKELIHOODS:
        raise ValueError(f"`likelihood` must be one of {list(LIKELIHOODS)}; got {likelihood!r}.")
    if not callable(apply) or not (isinstance(likelihood, str) or callable(likelihood)):
        raise TypeError(
            "`apply` must be a function of (params, x), and `likelihood` a name or a function of "
            f"the outputs; got {type(apply).__name__} and {type(likelihood).__name__}."
        )
    check_is_function("apply", apply)
    check_positive("scale", scale, meaning="It is the standard deviation of the noise.")
    return NetworkModel(apply, form_of(params), likelihood, float(scale))
