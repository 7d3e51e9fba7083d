"""``volume_scaling``: λ from how the volume of ``{L(z) - L(z*) <= ε}`` falls with ε."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.optimize import least_squares

from numpyro_llc._checks import check_integer, check_key, check_positive
from numpyro_llc.estimators import check_multiplicity
from numpyro_llc.evidence._splitting import Levels, split
from numpyro_llc.local import LocalizedModel, LocalTarget, check_localized
from numpyro_llc.models import check_given_in_memory

KEPT = 0.5
"""Share of the points kept at each level. A larger one moves points more often, a smaller one loses
more of them."""
ROUNDINGS = 32
"""Roundings of a loss that the narrowest ε must exceed: λ is then not bent by them."""
BELOW = 0.01
"""Nats of the whole loss below the centre that rounding may make."""
LEAST_LEVELS = 6
"""Of which the narrower half, three, are fitted by a line."""
FIRST_VALUE, FIRST_LOGS = 1.2, (0.0, 1.0, 2.5)
"""Starts of a fit with a multiplicity: λ in units of the line's slope, and ``ln(C - ln ε)``
at the widest level."""


@dataclass(frozen=True, eq=False)
class VolumeScaling:
    """λ from volumes.

    Attributes
    ----------
    learning_coefficient : float
        λ of the fit over the narrower half of the levels.
    error : float
        Its standard error, from the spread between independent replicas.
    multiplicity : int
        m, as given.
    curve : xarray.Dataset
        By ``epsilon`` (nats a datum): ``log_volume``, its ``error``, and ``slope``, the local
        ``d log V / d log ε`` between this level and the second next.
    """

    learning_coefficient: float
    error: float
    multiplicity: int
    curve: xr.Dataset


def volume_scaling(
    rng_key: jax.Array,
    model: LocalizedModel,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    multiplicity: int = 1,
    least: float | None = None,
    num_particles: int = 500,
    num_replicas: int = 8,
    num_moves: int = 10,
) -> VolumeScaling:
    r"""Estimate λ from ``V(ε) = P(L(z) - L(z*) <= ε) ~ ε^λ (log 1/ε)^(m - 1)``, by splitting.

    P is the Gaussian of precision γ around the centre. No temperature and no gradient enter, so it
    shares nothing with λ̂ but the loss. For small models: its cost grows with λ and with the
    distance that the sets have in them.

    Parameters
    ----------
    rng_key : jax.Array
    model : LocalizedModel
        What :func:`~numpyro_llc.localize` returned, with γ > 0; its `inverse_temperature` plays no
        part.
    model_args, model_kwargs
        The model's arguments.
    multiplicity : int
        m of the fit, ``λ log ε + (m - 1) log(C - log ε) + const``.
    least : float, optional
        The narrowest ε, nats a datum. By default 1/n: below it, noisy data show their own quadratic
        minimum and not the model.
    num_particles, num_replicas, num_moves : int
        Points of each replica, independent replicas, and moves of each point at each level.

    Returns
    -------
    VolumeScaling

    Raises
    ------
    ValueError
        For a bad argument, a centre that is not the minimum, or fewer than six levels.

    Notes
    -----
    Multilevel splitting (Cérou, Del Moral, Furon, Guyader 2012, Statistics and Computing
    22:795-808) with elliptical slice moves (Murray, Adams, MacKay 2010). The error is that of
    sampling: it does not cover terms of higher order in ε, which bend the curve (look at
    ``slope``), a multiplicity that is not the one given, or parts of the set that moves did not
    reach.
    """
    check_key(rng_key)
    multiplicity = check_multiplicity(multiplicity)
    counts = {"num_particles": num_particles, "num_replicas": num_replicas, "num_moves": num_moves}
    for name, minimum in (("num_particles", 10), ("num_replicas", 2), ("num_moves", 1)):
        check_integer(name, counts[name], minimum=minimum, meaning="It sets the error.")
    local = replace(check_localized(model), inverse_temperature=1.0)
    check_given_in_memory(model_args, model_kwargs, "`volume_scaling` takes")
    target, size = local.target(local.read(model_args, model_kwargs))
    if not all(float(gamma) > 0 for gamma in target.localization.values()):
        raise ValueError("`localization` must be positive for every site: it bounds the volume.")
    levels = split(
        rng_key, target, size, least=_check_least(least, target, size), **counts, kept=KEPT
    )
    _check(levels, size)
    value, error = _fit(levels, multiplicity)
    return VolumeScaling(value, error, multiplicity, _curve(levels))


def _check_least(least: float | None, target: LocalTarget, num_data: int) -> float:
    """The narrowest ε, above what rounding of the losses of a datum makes."""
    losses = jax.tree.leaves(target.center_losses) or [jnp.zeros(())]  # of divergences all are 0
    size = sum(float(np.sum(np.abs(loss))) for loss in losses) / num_data
    rounding = float(np.finfo(losses[0].dtype).eps) * ROUNDINGS * size
    if least is None:
        return max(1.0 / num_data, rounding)
    least = check_positive("least", least, meaning="It is the narrowest ε, in nats a datum.")
    if least < rounding:
        raise ValueError(
            f"`least` must be above the rounding of the losses, {rounding:.2g} nats a datum in "
            f"{losses[0].dtype}; got {least:.2g}. Raise it, or enable x64 in JAX."
        )
    return least


def _check(levels: Levels, num_data: int) -> None:
    if levels.lowest * num_data < -BELOW:
        raise ValueError(
            f"`center` is not the minimum: the loss falls {-levels.lowest * num_data:.3g} nats "
            "below it nearby. Use find_center, or a larger `localization`."
        )
    if len(levels.epsilon) < LEAST_LEVELS:
        raise ValueError(
            f"Six levels are needed to fit λ; there are {len(levels.epsilon)} down to ε = "
            f"{levels.epsilon[-1]:.3g}. Give a smaller `least` or `localization`."
        )


def _fit(levels: Levels, multiplicity: int) -> tuple[float, float]:
    """λ over the narrower half of the levels, and its error by the jackknife over replicas."""
    half = len(levels.epsilon) // 2
    order = np.log(levels.epsilon[half:])
    volumes = levels.log_volume[:, half:]
    value = _slope(order, volumes.mean(axis=0), multiplicity)
    count = len(volumes)
    left_out = np.array(
        [_slope(order, np.delete(volumes, k, 0).mean(axis=0), multiplicity) for k in range(count)]
    )
    return value, float(np.sqrt((count - 1) * np.var(left_out)))


def _slope(order: np.ndarray, log_volume: np.ndarray, multiplicity: int) -> float:
    """λ by least squares, together with C, large enough that the logarithm is positive."""
    if multiplicity == 1:
        return float(np.polyfit(order, log_volume, 1)[0])

    def residuals(parameters: np.ndarray) -> np.ndarray:
        value, constant, log_start = parameters
        inner = order[0] - order + np.exp(log_start)
        fitted = value * order + (multiplicity - 1) * np.log(inner) + constant
        return np.asarray(fitted - log_volume)

    first = float(np.polyfit(order, log_volume, 1)[0])
    best = min(
        (
            least_squares(residuals, (first * FIRST_VALUE, log_volume.mean(), start))
            for start in FIRST_LOGS
        ),
        key=lambda one: float(one.cost),
    )
    return float(best.x[0])


def _curve(levels: Levels) -> xr.Dataset:
    mean = levels.log_volume.mean(axis=0)
    error = levels.log_volume.std(axis=0, ddof=1) / np.sqrt(len(levels.log_volume))
    order = np.log(levels.epsilon)
    slope = np.full(mean.shape, np.nan)
    slope[:-2] = (mean[2:] - mean[:-2]) / (order[2:] - order[:-2])
    columns = {"log_volume": mean, "error": error, "slope": slope}
    return xr.Dataset(
        {name: ("epsilon", values) for name, values in columns.items()},
        coords={"epsilon": levels.epsilon},
    )
