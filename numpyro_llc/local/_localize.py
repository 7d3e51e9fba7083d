"""``localize``: a NumPyro model whose posterior is the localized, tempered one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from numpyro import handlers

from numpyro_llc._checks import (
    check_gammas,
    check_localization,
    check_num_data,
    inverse_temperature_or_default,
)
from numpyro_llc.local._growth import check_no_local_latents
from numpyro_llc.local._local_sites import LocalSites
from numpyro_llc.local._parts import Fixed, Sites, is_free_of, split
from numpyro_llc.local._summed_out import check_sampled, summed_out
from numpyro_llc.local._target import LocalTarget, make_target
from numpyro_llc.local._total_loss import check_finite
from numpyro_llc.models import (
    FullPlates,
    InAxes,
    ModelReading,
    Parameters,
    PyTree,
    Truth,
    check_given_in_memory,
    check_local_latents,
    constrain,
    make_truth,
    read_model,
    sources_of,
)

Localization = float | jax.Array | str | Mapping[str, float | jax.Array]
"""γ: one for all sites, or by site, or "auto"."""
TRUTHS = ("data", "center")
"""What losses are measured against: the observations, or the model's distributions at w*."""


@dataclass(frozen=True, eq=False)
class LocalizedModel:
    """What is sampled: a model, the point it is localized at, and how.

    :func:`localize` makes one and documents the fields. Call it, or give it to a kernel, like the
    model itself; ``dataclasses.replace`` changes a field.
    """

    model: Callable
    center: PyTree
    localization: Localization = 1.0
    inverse_temperature: float | jax.Array | None = None
    num_data: int | None = None
    sites: Sites | None = None
    truth: str = "data"
    likelihood_factors: Sequence[str] = ()
    prior_factors: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.truth not in TRUTHS:
            raise ValueError(f"`truth` must be one of {list(TRUTHS)}; got {self.truth!r}.")
        if self.num_data is not None:
            object.__setattr__(self, "num_data", check_num_data(self.num_data))
        if not isinstance(self.inverse_temperature, jax.core.Tracer):
            inverse_temperature_or_default(self.inverse_temperature, 2)
        check_gammas(self.localization)

    @property
    def __name__(self) -> str:
        return f"localized_{getattr(self.model, '__name__', 'model')}"

    def read(
        self,
        args: Sequence[object],
        kwargs: Mapping[str, object] | None = None,
        in_axes: InAxes | None = None,
    ) -> ModelReading:
        """Read the model with these arguments at its centre, with all its checks.

        `in_axes` says which axes hold rows, where some of these lie elsewhere.
        """
        if self.center is None:
            raise ValueError(
                "`center` must be given: center={site: value}, or what find_center returned, in "
                "estimate_llc or in localize. Only llc_trajectory brings centres of its own."
            )
        reading = read_model(
            self.model,
            args,
            kwargs,
            center=self.center,
            likelihood_factors=self.likelihood_factors,
            prior_factors=self.prior_factors,
            in_axes=in_axes,
        )
        sampled, _ = self._parts(reading)
        check_no_local_latents(reading, tuple(sampled), self.num_data)
        return reading

    def _parts(self, reading: ModelReading) -> tuple[Parameters, Fixed | None]:
        if self.sites is None:
            return reading.center, None
        check_sampled(self.sites, reading)
        return split(reading.center, self.sites)

    def target(self, reading: ModelReading) -> tuple[LocalTarget, int]:
        """The density to sample, of the model as it was read, and n.

        Raises
        ------
        NonFiniteLossError
            If the loss at the centre is not finite.
        """
        num_data, beta = reading.num_data(self.num_data), self.inverse_temperature
        if isinstance(num_data, jax.core.Tracer):  # it is known when the traced model runs
            beta = 1.0 / jnp.log(num_data) if beta is None else beta
        else:
            num_data = check_num_data(num_data)
            beta = inverse_temperature_or_default(None, num_data) if beta is None else beta
        return self._density(reading, beta), num_data

    def _density(self, reading: ModelReading, beta: float | jax.Array) -> LocalTarget:
        check_finite(reading, "at `center`")
        center, fixed = self._parts(reading)
        return make_target(
            reading.program,
            reading.arrays,
            center,
            inverse_temperature=beta,
            localization=check_localization(self.localization, reading.center),
            center_losses={} if sources_of(reading.arrays) else reading.center_losses,
            fixed=fixed,
            truth=self.truth_of(reading),
            stream=reading.stream,
        )

    def truth_of(self, reading: ModelReading) -> Truth | None:
        """What losses are measured against, if not the data."""
        if self.truth == "data":
            return None
        return make_truth(reading.program, reading.center, reading.arrays)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the model with localizing priors and a tempered likelihood."""
        check_given_in_memory(args, kwargs, "A kernel under NumPyro takes")
        reading = self.read(args, kwargs)
        if self.inverse_temperature is None or self.num_data is not None:
            target, _ = self.target(reading)
        else:  # n, which the model may leave in doubt, is not needed
            check_local_latents(reading.local_latents)
            target = self._density(reading, self.inverse_temperature)
        check_under_numpyro(target)
        program, is_free = reading.program, is_free_of(reading.center, target.fixed)
        fixed = tuple(name for name in program.latents if not is_free[name])
        values = constrain(program, fixed, reading.center, reading.arrays) if fixed else {}
        with (
            program.knowing(),
            FullPlates(),
            LocalSites(reading, target),
            handlers.condition(data=values),
        ):
            return summed_out(reading)(*args, **kwargs)


def localize(
    model: Callable,
    *,
    center: PyTree,
    localization: Localization = 1.0,
    inverse_temperature: float | jax.Array | None = None,
    num_data: int | None = None,
    sites: Sites | None = None,
    truth: str = "data",
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
    localization : float, dict of str to float, or "auto"
        γ, the precision of the Gaussian around ``z*`` in unconstrained space, for all sites or by
        site. Positive; zero is allowed where the likelihood alone keeps the chains. "auto" is for
        ``estimate_llc`` and ``llc_trajectory``, which choose it by :func:`choose_localization`.
    inverse_temperature : float, optional
        β > 0, a multiplier of the summed loss. Default ``1 / log(n)``.
    num_data : int, optional
        n, inferred from plates or shapes where the model leaves no doubt. Sets the default of β.
    sites : str, sequence of str or dict, optional
        What to sample, the rest being fixed at ``w*`` (the weight-refined λ̂): names of sites or of
        parts of a network (``"net$params.Dense_0"``, as results name them), or masks
        ``{site: True, False, array or pytree of them}`` over unconstrained values. Default: all.
    truth : {"data", "center"}
        What the loss of a datum is measured against. "data": ``-log p(y_i | x_i, w)``. "center":
        ``KL(p(· | x_i, w*) ‖ p(· | x_i, w))``, from what the model says at ``w*``. That is its
        minimum, at a checkpoint in the midst of training too. See Notes.
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
    :class:`numpyro.handlers.scale`. Discrete latent sites are summed out first, and leave a
    ``numpyro.factor`` of the losses; `center` and `sites` do not name them. A ``numpyro.param``
    named in `center` becomes a latent site (each leaf of a pytree a site of its own).

    With ``truth="center"`` the observations say how many data there are, and what a datum is
    conditioned on, as the past of a time series. λ̂ is the complexity of what the model computes on
    these inputs, not of the loss that training sees; at a minimum where the model is true the two
    agree. Divergences without a closed form or a finite sum are means over draws from
    ``p(· | x_i, w*)``, with an error in :func:`error_budget`.
    """
    return LocalizedModel(
        model,
        center,
        localization,
        inverse_temperature,
        num_data,
        sites,
        truth,
        likelihood_factors,
        prior_factors,
    )


def as_localized(model: LocalizedModel | Callable, **settings: PyTree) -> LocalizedModel:
    """A plain model with these settings of ``localize``; a localized one has its own.

    Raises
    ------
    ValueError
        If a localized model comes with settings, or a plain one without a centre.
    """
    if isinstance(model, LocalizedModel):
        default = LocalizedModel.localization
        given = [k for k, v in settings.items() if v is not None and not _equals(v, default)]
        if given:
            raise ValueError(
                f"`{given[0]}` is a setting of the localized model: give it to localize(...), or "
                "pass the plain model."
            )
        return model
    return LocalizedModel(model, **settings)


def _equals(value: object, default: object) -> bool:
    return isinstance(value, int | float) and value == default


def check_localized(model: object) -> LocalizedModel:
    """Refuse a plain model where its centre is needed."""
    if not isinstance(model, LocalizedModel):
        name = f"the plain model {model.__name__}" if hasattr(model, "__name__") else repr(model)
        raise TypeError(
            f"`model` must be localized: numpyro_llc.localize(model, center=...); got {name}."
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
