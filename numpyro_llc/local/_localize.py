"""``localize``: a NumPyro model whose posterior is the localized, tempered one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions.distribution import Unit
from numpyro.primitives import Messenger

from numpyro_llc._checks import check_localization, check_positive
from numpyro_llc.models import FullPlates, ModelReading, read_model


class LocalizedModel:
    """What :func:`localize` returns: call it, or give it to a kernel, like the model itself."""

    def __init__(self, model: Callable, **settings: Any) -> None:
        self.model = model
        self.settings = settings
        self.__name__ = f"localized_{getattr(model, '__name__', 'model')}"

    def read(self, *args: Any, **kwargs: Any) -> ModelReading:
        """Read the model at its centre, with all its checks."""
        return read_model(
            self.model,
            args,
            kwargs,
            center=self.settings["center"],
            likelihood_factors=self.settings["likelihood_factors"],
            prior_factors=self.settings["prior_factors"],
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with localizing priors and a tempered likelihood."""
        reading = self.read(*args, **kwargs)
        localization = check_localization(self.settings["localization"], reading.center)
        with FullPlates(), _Localize(reading, localization, self.settings["inverse_temperature"]):
            return self.model(*args, **kwargs)


def localize(
    model: Callable,
    *,
    center: Mapping[str, Any],
    inverse_temperature: Any,
    localization: Any = 1.0,
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
) -> LocalizedModel:
    r"""Replace each prior by a Gaussian around `center` and temper the likelihood.

    The posterior of the model returned is, in unconstrained space,
    ``p(z) ∝ exp(-β nL(z) - γ/2 |z - z*|²)``. Site names, supports and shapes stay, so any NumPyro
    kernel runs on it and ArviZ labels its draws as before.

    Parameters
    ----------
    model : callable
        A NumPyro model.
    center : dict
        ``{site: constrained value}`` for each latent site and each ``numpyro.param``, or a
        :class:`~numpyro_llc.Center`.
    inverse_temperature : float
        β, usually ``1 / log(n)``.
    localization : float or dict of str to float
        γ, precision of the Gaussian in unconstrained space, for all sites or by site. Positive.
    likelihood_factors, prior_factors : sequences of str
        Which ``numpyro.factor`` sites belong to the likelihood (tempered) or the prior (dropped).

    Returns
    -------
    callable
        A NumPyro model with the arguments of `model`.

    Raises
    ------
    ValueError
        Here for a bad number; at the first call for a centre that does not fit the model, and for
        constructs that cannot be tempered.

    Notes
    -----
    Lau, Furman, Wang, Murfet, Wei (2023), arXiv:2308.12108. Priors, masks on priors and
    ``handlers.scale`` inside the model on priors play no part. The likelihood is tempered with
    :class:`numpyro.handlers.scale`. A ``numpyro.param`` named in `center` becomes a latent site
    (each leaf of a pytree a site of its own).
    """
    if not isinstance(inverse_temperature, jax.core.Tracer):
        check_positive(
            "inverse_temperature", inverse_temperature, meaning="Use 1 / log(n) for n data points."
        )
    for gamma in localization.values() if isinstance(localization, Mapping) else [localization]:
        if not isinstance(gamma, jax.core.Tracer):
            check_positive("localization", gamma, meaning="Zero leaves no Gaussian to sample from.")
    return LocalizedModel(
        model,
        center=getattr(center, "params", center),
        inverse_temperature=inverse_temperature,
        localization=localization,
        likelihood_factors=likelihood_factors,
        prior_factors=prior_factors,
    )


class _Localize(Messenger):
    def __init__(self, reading: ModelReading, localization: dict[str, Any], beta: Any) -> None:
        super().__init__()
        self.reading = reading
        self.localization = localization
        self.temper = handlers.scale(scale=beta)
        self.log_dets = {f"_{site}_log_det" for site in reading.center}

    def process_message(self, msg: dict[str, Any]) -> None:
        name = msg.get("name")
        if msg["type"] == "param" and name in self.reading.center:
            msg["value"] = self._lift(name, msg["kwargs"].get("constraint"))
            msg["stop"] = True  # Kernels hold a param site fixed; its sample sites replace it.
        elif msg["type"] != "sample":
            return
        elif name in self.reading.center:
            msg["fn"] = self._gaussian(name, self.reading.center[name], msg["fn"])
            msg["scale"] = None
        elif name in self.log_dets:  # NumPyro's Jacobian factor: not the user's to scale either.
            msg["scale"] = None
        elif name in self.reading.program.likelihood:
            self.temper.process_message(msg)
        elif name in self.reading.program.prior_factors:
            msg["fn"] = Unit(jnp.zeros(()))

    def _gaussian(self, name: str, center: jax.Array, prior: dist.Distribution) -> Any:
        transform = biject_to(prior.support)
        event_dim = transform.domain.event_dim + prior.event_dim - transform.codomain.event_dim
        base = dist.Normal(center, self.localization[name] ** -0.5).to_event(event_dim)
        return dist.TransformedDistribution(base, transform)

    def _lift(self, name: str, constraint: Any) -> Any:
        """Put sample sites in place of a param site: one, or one for each leaf of its pytree."""
        center = self.reading.center[name]
        paths, treedef = jax.tree_util.tree_flatten_with_path(center)
        values = []
        for path, leaf in paths:
            # A site of the param's own name comes back to `process_message`, which is harmless.
            site = ".".join([name, *(jax.tree_util.keystr((key,), simple=True) for key in path)])
            prior = dist.Normal(leaf, self.localization[name] ** -0.5).to_event(jnp.ndim(leaf))
            if constraint is not None:
                prior = dist.TransformedDistribution(prior, biject_to(constraint))
            values.append(numpyro.sample(site, prior))
        return jax.tree.unflatten(treedef, values)
