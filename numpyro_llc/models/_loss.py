"""``loss_model``: a NumPyro model from the losses of the data."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist

from numpyro_llc.models._form import Form, form_of
from numpyro_llc.models._modules import called
from numpyro_llc.models._types import PyTree


class NegativeLoss(dist.Distribution):
    """Has ``-losses`` for its log density, whatever the value.

    `divergence` is the user's function, of which `params` and `data` are the arguments here.
    """

    support = dist.constraints.real
    pytree_data_fields = ("losses", "params", "data")
    pytree_aux_fields = ("divergence",)

    def __init__(
        self,
        losses: jax.Array,
        divergence: Callable[..., jax.Array] | None = None,
        params: PyTree = None,
        data: tuple[PyTree, ...] = (),
        event_shape: tuple[int, ...] = (),
    ) -> None:
        self.losses, self.divergence = losses, divergence
        self.params, self.data = params, data
        super().__init__(jnp.shape(losses), event_shape, validate_args=False)

    def divergence_from(self, truth: "NegativeLoss") -> jax.Array:
        """The divergence of each datum of what `truth` says from what this says, nats."""
        assert self.divergence is not None
        found = self.divergence(truth.params, self.params, *self.data)
        if not isinstance(found, jax.Array) or found.shape != self.losses.shape:
            kind = found.shape if isinstance(found, jax.Array) else type(found).__name__
            raise TypeError(
                "`divergence` must return an array of floats of the shape of `losses`, "
                f"{self.losses.shape}; got {kind}."
            )
        return found

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
    divergence: Callable[..., jax.Array] | None = None

    def __call__(self, *data: PyTree) -> None:
        """Add the loss of each datum, given `data` as the function takes them."""
        params = self.form.filled()
        losses = called("losses", self.losses, params, *data)
        if not isinstance(losses, jax.Array) or not jnp.issubdtype(losses.dtype, jnp.floating):
            kind = losses.dtype if isinstance(losses, jax.Array) else type(losses).__name__
            raise TypeError(
                "`losses` must return an array of floats, the losses in nats [n] (or one number, "
                f"a potential without data); got {kind}."
            )
        noise = NegativeLoss(losses, self.divergence, params, data)
        if not losses.ndim:
            numpyro.sample("loss", noise, obs=jnp.zeros(()))
            return
        with numpyro.plate("data", len(losses), dim=-losses.ndim):
            numpyro.sample("loss", noise, obs=jnp.zeros(losses.shape))


def loss_model(
    losses: Callable[..., jax.Array],
    params: PyTree,
    *,
    divergence: Callable[..., jax.Array] | None = None,
) -> LossModel:
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
    divergence : callable, optional
        ``divergence(params_at_center, params, *data) -> [n]``, of the shape of the losses: how far
        what the model says of each datum is from what it says at the centre. At least 0, and 0 at
        the centre, such as half the squared distance of the outputs. ``truth="center"`` of
        ``localize`` takes it in the place of the losses.

    Returns
    -------
    LossModel
        A model with the param site ``params``, the plate ``data`` and the observed site ``loss``.

    Raises
    ------
    ValueError, TypeError
        For `params` that are no floats; and when the model is read, for losses that are no array of
        floats, or that depend on other rows than their own where batches are drawn.

    Examples
    --------
    Absolute deviations, whose loss grows linearly in one parameter, so that λ is 1:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpyro_llc as nllc
    >>> def losses(params, y):
    ...     return jnp.abs(y - params["w"])
    >>> params = {"w": jnp.zeros(())}
    >>> idata = nllc.estimate_llc(
    ...     jax.random.key(0),
    ...     nllc.loss_model(losses, params),
    ...     (jnp.zeros(1000),),
    ...     center={"params": params},
    ...     kernel="hmc",
    ...     progress_bar=False,
    ... )
    >>> round(float(nllc.summary(idata).loc["llc", "mean"]))
    1
    """
    if not callable(losses):
        raise TypeError(
            f"`losses` must be a function of (params, *data); got {type(losses).__name__}."
        )
    if divergence is not None and not callable(divergence):
        raise TypeError(
            "`divergence` must be a function of (params_at_center, params, *data); got "
            f"{type(divergence).__name__}."
        )
    return LossModel(losses, form_of(params), divergence)
