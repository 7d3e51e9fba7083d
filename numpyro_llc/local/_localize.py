"""``localize``: a NumPyro model whose posterior is the localized, tempered one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions.distribution import Unit
from numpyro.primitives import Messenger

from numpyro_llc._checks import (
    check_gamma,
    check_localization,
    check_num_data,
    inverse_temperature_or_default,
)
from numpyro_llc.errors import NonFiniteLossError
from numpyro_llc.local._parts import is_free_of, split
from numpyro_llc.local._target import LocalTarget, make_target, total_loss
from numpyro_llc.models import FullPlates, ModelReading, constrain, leaf_name, read_model


@dataclass(frozen=True, eq=False)
class LocalizedModel:
    """What is sampled: a model, the point it is localized at, and how.

    :func:`localize` makes one and documents the fields. Call it, or give it to a kernel, like the
    model itself; ``dataclasses.replace`` changes a field.
    """

    model: Callable
    center: Any
    localization: Any = 1.0
    inverse_temperature: Any = None
    num_data: int | None = None
    sites: Any = None
    likelihood_factors: Sequence[str] = ()
    prior_factors: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.num_data is not None:
            object.__setattr__(self, "num_data", check_num_data(self.num_data))
        beta, gammas = self.inverse_temperature, self.localization
        if not isinstance(beta, jax.core.Tracer):
            inverse_temperature_or_default(beta, 2)
        for gamma in gammas.values() if isinstance(gammas, Mapping) else [gammas]:
            check_gamma(gamma)

    @property
    def __name__(self) -> str:
        return f"localized_{getattr(self.model, '__name__', 'model')}"

    def read(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> ModelReading:
        """Read the model with these arguments at its centre, with all its checks."""
        if self.center is None:
            raise ValueError(
                "`center` must be given: localize(model, center={site: value}) or a Center. Only "
                "llc_trajectory, which brings its own centres, does without."
            )
        return read_model(
            self.model,
            args,
            kwargs,
            center=self.center,
            likelihood_factors=self.likelihood_factors,
            prior_factors=self.prior_factors,
        )

    def target(self, reading: ModelReading) -> tuple[LocalTarget, int]:
        """The density to sample, of the model as it was read, and n.

        Raises
        ------
        NonFiniteLossError
            If the loss at the centre is not finite.
        """
        num_data, beta = reading.num_data(self.num_data), self.inverse_temperature
        if isinstance(num_data, jax.core.Tracer):
            beta = 1.0 / jnp.log(num_data) if beta is None else beta
        else:
            num_data = check_num_data(num_data)
        check_finite(reading, "at `center`")
        if not isinstance(beta, jax.core.Tracer):
            beta = inverse_temperature_or_default(beta, num_data)
        center, fixed = (reading.center, None)
        if self.sites is not None:
            center, fixed = split(reading.center, self.sites)
        target = make_target(
            reading.program,
            reading.arrays,
            center,
            inverse_temperature=beta,
            localization=check_localization(self.localization, reading.center),
            center_losses=reading.center_losses,
            fixed=fixed,
        )
        return target, num_data

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with localizing priors and a tempered likelihood."""
        reading = self.read(args, kwargs)
        target, _ = self.target(reading)
        check_under_numpyro(target)
        program, is_free = reading.program, is_free_of(reading.center, target.fixed)
        fixed = tuple(name for name in program.latents if not is_free[name])
        values = constrain(program, fixed, reading.center, reading.arrays) if fixed else {}
        with FullPlates(), _Localize(reading, target), handlers.condition(data=values):
            return self.model(*args, **kwargs)


def localize(
    model: Callable,
    *,
    center: Any,
    localization: Any = 1.0,
    inverse_temperature: Any = None,
    num_data: int | None = None,
    sites: Any = None,
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
) -> LocalizedModel:
    r"""Replace each prior by a Gaussian around `center` and temper the likelihood.

    The posterior of the model returned is, in unconstrained space,
    ``p(z) ∝ exp(-β nL(z) - γ/2 |z - z*|²)``. Site names, supports and shapes stay, so any NumPyro
    kernel runs on it and ArviZ labels its draws as before. ``estimate_llc`` and every other
    function that samples take it in the place of the model.

    Parameters
    ----------
    model : callable
        A NumPyro model.
    center : dict or Center
        The point ``w*``: ``{site: constrained value}`` for each latent sample site and each
        ``numpyro.param`` (a pytree for a network's ``params``), or what ``find_center`` returned.
        None leaves it to ``llc_trajectory``, which brings its own.
    localization : float or dict of str to float
        γ, the precision of the Gaussian around ``z*`` in unconstrained space, for all sites or by
        site. Positive; zero is allowed where the likelihood alone keeps the chains.
    inverse_temperature : float, optional
        β > 0, a multiplier of the summed loss. Default ``1 / log(n)``.
    num_data : int, optional
        n. Inferred from plates or shapes where the model leaves no doubt. Sets the default of β.
    sites : str, sequence of str or dict, optional
        What to sample, the rest being fixed at ``w*`` (the weight-refined λ̂): names of sites or of
        parts of a network (``"net$params.Dense_0"``, as results name them), or masks
        ``{site: True, False, array or pytree of them}`` over unconstrained values. Default: all.
    likelihood_factors, prior_factors : sequences of str
        Which ``numpyro.factor`` sites belong to the likelihood (tempered) or the prior (dropped).

    Returns
    -------
    LocalizedModel
        A NumPyro model with the arguments of `model`.

    Raises
    ------
    ValueError, TypeError
        Here for a bad number; at the first call for a centre that does not fit the model, and for
        constructs that cannot be tempered.

    Notes
    -----
    Lau, Furman, Wang, Murfet, Wei (2023), arXiv:2308.12108. Priors, masks on priors and
    ``handlers.scale`` inside the model on priors play no part. The likelihood is tempered with
    :class:`numpyro.handlers.scale`. A ``numpyro.param`` named in `center` becomes a latent site
    (each leaf of a pytree a site of its own).
    """
    return LocalizedModel(
        model,
        center,
        localization,
        inverse_temperature,
        num_data,
        sites,
        likelihood_factors,
        prior_factors,
    )


def as_localized(model: Any, **settings: Any) -> LocalizedModel:
    """A plain model with these settings of ``localize``; a localized one has its own.

    Raises
    ------
    ValueError
        If a localized model comes with settings, or a plain one without a centre.
    """
    if isinstance(model, LocalizedModel):
        default = LocalizedModel.localization
        given = [k for k, v in settings.items() if v is not None and not _is(v, default)]
        if given:
            raise ValueError(
                f"`{given[0]}` is a setting of the localized model: give it to localize(...), or "
                "pass the plain model."
            )
        return model
    return LocalizedModel(model, **settings)


def _is(value: Any, default: float) -> bool:
    return isinstance(value, int | float) and value == default


def check_localized(model: Any) -> LocalizedModel:
    """Refuse a plain model where its centre is needed."""
    if not isinstance(model, LocalizedModel):
        raise TypeError(
            "`model` must be localized: numpyro_llc.localize(model, center=...); got "
            f"{getattr(model, '__name__', model)!r}."
        )
    return model


def check_under_numpyro(target: LocalTarget) -> None:
    """Refuse what NumPyro's own sites cannot express."""
    if not all(isinstance(g, jax.core.Tracer) or g > 0 for g in target.localization.values()):
        raise ValueError(
            "`localization` must be positive for every site under a NumPyro kernel: zero leaves no "
            "Gaussian to sample from. estimate_llc takes it."
        )
    if target.fixed is not None and target.fixed.places:
        raise ValueError(
            "`sites` masks parts of an array, which one NumPyro site cannot hold. Use "
            "estimate_llc, or name whole sites or leaves."
        )


def check_finite(reading: ModelReading, where: str) -> None:
    """Refuse a loss that is not finite, by site; of a traced model nothing is known yet."""
    losses = jax.tree.leaves(reading.center_losses)
    if any(isinstance(loss, jax.core.Tracer) for loss in losses):
        return
    if not np.isfinite(total_loss(reading.center_losses)):
        bad = {k: int(np.sum(~np.isfinite(v))) for k, v in reading.center_losses.items()}
        raise NonFiniteLossError(
            f"The loss {where} is not finite: {bad} non-finite values by observed site. Is "
            "each observation inside the support of its likelihood there?"
        )


class _Localize(Messenger):
    """Gaussians for priors, a tempered likelihood; sites that are fixed lose their density."""

    def __init__(self, reading: ModelReading, target: LocalTarget) -> None:
        super().__init__()
        self.reading = reading
        self.localization = target.localization
        self.is_free = is_free_of(reading.center, target.fixed)
        self.temper = handlers.scale(scale=target.inverse_temperature)
        self.log_dets = {f"_{site}_log_det" for site in reading.center}

    def process_message(self, msg: dict[str, Any]) -> None:
        name = msg.get("name")
        if msg["type"] == "param" and name in self.reading.center:
            msg["value"] = self._lift(name, msg["kwargs"].get("constraint"))
            msg["stop"] = True  # Kernels hold a param site fixed; its sample sites replace it.
        elif msg["type"] != "sample":
            return
        elif name in self.reading.center:
            is_free = self.is_free[name]
            msg["fn"] = self._gaussian(name, msg["fn"]) if is_free else msg["fn"].mask(False)
            msg["scale"] = None
        elif name in self.log_dets:  # NumPyro's Jacobian factor: not the user's to scale either.
            msg["scale"] = None
        elif name in self.reading.program.likelihood:
            self.temper.process_message(msg)
        elif name in self.reading.program.prior_factors:
            msg["fn"] = Unit(jnp.zeros(()))

    def _gaussian(self, name: str, prior: dist.Distribution) -> Any:
        transform = biject_to(prior.support)
        event_dim = transform.domain.event_dim + prior.event_dim - transform.codomain.event_dim
        scale = self.localization[name] ** -0.5
        base = dist.Normal(self.reading.center[name], scale).to_event(event_dim)
        return dist.TransformedDistribution(base, transform)

    def _lift(self, name: str, constraint: Any) -> Any:
        """Put sample sites in place of a param site: one, or one for each leaf of its pytree."""
        center = self.reading.center[name]
        paths, treedef = jax.tree_util.tree_flatten_with_path(center)
        values = []
        for (path, leaf), is_free in zip(paths, jax.tree.leaves(self.is_free[name]), strict=True):
            if not is_free:
                values.append(leaf if constraint is None else biject_to(constraint)(leaf))
                continue
            # A site of the param's own name comes back to `process_message`, which is harmless.
            prior = dist.Normal(leaf, self.localization[name] ** -0.5).to_event(jnp.ndim(leaf))
            if constraint is not None:
                prior = dist.TransformedDistribution(prior, biject_to(constraint))
            values.append(numpyro.sample(leaf_name(name, path), prior))
        return jax.tree.unflatten(treedef, values)
