"""``loss_model``: a NumPyro model from the losses of the data."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist

from numpyro_llc.models._form import Form, form_of
from numpyro_llc.models._types import PyTree


class NegativeLoss(dist.Distribution):
    """Has ``-losses`` for its log density, whatever the value."""

    support = dist.constraints.real
    pytree_data_fields = ("losses",)

    def __init__(self, losses: jax.Array) -> None:
        self.losses = losses
        super().__init__(batch_shape=jnp.shape(losses), validate_args=False)

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Minus the losses, nats [*batch_shape]."""
        return -self.losses


@dataclass(frozen=True)
class LossModel:
    """What :func:`loss_model` returns: a NumPyro model of the data.

    Two of the same function and structure are equal, so that they share compiled code.
    """

    losses: Callable[..., jax.Array]
    form: Form

    def __call__(self, *data: PyTree) -> None:
        """Add the loss of each datum, given `data` as the function takes them."""
        losses = self.losses(self.form.filled(), *data)
        if not isinstance(losses, jax.Array) or not jnp.issubdtype(losses.dtype, jnp.floating):
            kind = losses.dtype if isinstance(losses, jax.Array) else type(losses).__name__
            raise TypeError(
                "`losses` must return an array of floats, the losses in nats [n] (or one number, "
                f"a potential without data); got {kind}."
            )
        if not losses.ndim:
            numpyro.sample("loss", NegativeLoss(losses), obs=jnp.zeros(()))
            return
        with numpyro.plate("data", len(losses), dim=-losses.ndim):
            numpyro.sample("loss", NegativeLoss(losses), obs=jnp.zeros(losses.shape))


def loss_model(losses: Callable[..., jax.Array], params: PyTree) -> LossModel:
    """Make a NumPyro model of ``data`` from their losses, which need be no likelihood.

    The localized density is ``exp(-β Σ losses - γ/2 |z - z*|²)``.

    Parameters
    ----------
    losses : callable
        ``losses(params, *data) -> [n]``, in nats: the loss of each datum, deterministic, each a
        function of its own row of `data` alone. Losses ``[n, k]``, such as those of the k tokens of
        n sequences, need ``num_data``: the number of sequences, or of tokens. So does one number, a
        potential without data. One function object for all calls: it is a key of compiled code.
    params : pytree
        Parameters as `losses` takes them: of floats, or of a module, as :func:`network_model` takes
        them. Only structure and shapes are used; the centre is ``center={"params": params}``.

    Returns
    -------
    LossModel
        A model with the param site ``params``, the plate ``data`` and the observed site ``loss``.

    Raises
    ------
    ValueError, TypeError
        For `params` that are no floats; and when the model is read, for losses that are no array of
        floats, or that depend on other rows than their own where batches are drawn.
    """
    if not callable(losses):
        raise TypeError(
            f"`losses` must be a function of (params, *data); got {type(losses).__name__}."
        )
    return LossModel(losses, form_of(params))
