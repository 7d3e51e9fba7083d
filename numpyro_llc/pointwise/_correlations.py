"""Correlations of losses over the draws: loss kernel, influences, susceptibilities."""

from collections.abc import Sequence

import jax
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from numpyro_llc.estimators import covariances, means_less_covariances
from numpyro_llc.inference_data import draws_of
from numpyro_llc.pointwise._losses import PointwiseLosses


def loss_covariance(
    losses: PointwiseLosses,
    *,
    queries: Sequence[int] | None = None,
    observable: xr.DataArray | None = None,
) -> xr.Dataset:
    r"""``Cov(ℓ_i, ℓ_j)`` over the draws: the loss kernel; or ``Cov(ℓ_i, φ)``.

    Parameters
    ----------
    losses : PointwiseLosses
        What :func:`pointwise_losses` returned.
    queries : sequence of int, optional
        The data j; all of them if left out. Draws times queries are held at once.
    observable : xarray.DataArray [chain, draw], optional
        φ, in place of the losses of queries, such as a variable of the posterior.

    Returns
    -------
    xarray.Dataset
        ``covariance`` and its Monte Carlo ``error`` by batch means, with the dimensions ``datum``
        and ``query``; of an observable ``datum`` only. Nats squared, and nats times the unit of φ.
        attrs: β.

    Notes
    -----
    The response to the weights of the data: with datum i counted 1 + ε times,
    ``dE[φ]/dε = -β Cov(ℓ_i, φ)``, which for φ a loss is known as the Bayesian influence function.
    Exact for the density that was sampled, to first order in ε.
    """
    if observable is not None:
        if queries is not None:
            raise ValueError("Give `queries` or `observable`, not both.")
        other = _as_draws(losses, observable)[..., None]
    else:
        rows = np.arange(losses.num_rows) if queries is None else np.asarray(queries, int)
        if rows.ndim != 1 or rows.size == 0 or rows.min() < 0 or rows.max() >= losses.num_rows:
            raise ValueError(
                f"`queries` must be numbers of data, from 0 to {losses.num_rows - 1}; got "
                f"{queries!r}."
            )
        other = losses.of(rows)[0]
    parts = [covariances(excess, other) for _, excess, _ in losses]
    covariance, error = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    dims: tuple[str, ...] = ("datum", "query")
    coords = {"datum": np.arange(losses.num_rows)}
    if observable is not None:
        dims, covariance, error = dims[:1], covariance[:, 0], error[:, 0]
    else:
        coords["query"] = rows
    return xr.Dataset(
        {"covariance": (dims, covariance), "error": (dims, error)},
        coords=coords,
        attrs={"inverse_temperature": losses.inverse_temperature},
    )


def _as_draws(losses: PointwiseLosses, observable: xr.DataArray) -> np.ndarray:
    if not isinstance(observable, xr.DataArray) or set(observable.dims) != {"chain", "draw"}:
        raise TypeError(
            "`observable` must be an xarray.DataArray of dimensions chain and draw; got "
            f"{type(observable).__name__} {getattr(observable, 'dims', '')}."
        )
    values = draws_of(xr.Dataset({"observable": observable}), "observable")
    if values.shape != losses.shape:
        raise ValueError(
            f"`observable` must be of the draws of the result, {losses.shape}; got {values.shape}."
        )
    return values


def susceptibilities(losses: PointwiseLosses) -> xr.Dataset:
    r"""How λ̂ answers to the weight of each datum, and to γ of each site.

    Parameters
    ----------
    losses : PointwiseLosses
        Of a result of :func:`~numpyro_llc.estimate_llc`, made with its `center`.

    Returns
    -------
    xarray.Dataset
        ``by_datum`` [datum], ``dλ̂/d log(weight of datum i) = E[y_i] - Cov(X, y_i)``, with X the
        `llc` of a draw and ``y_i = β [ℓ_i(z) - ℓ_i(z*)]``: the first term is the datum's own share
        of λ̂, the second (``response``) what it does to the density. ``by_site`` [site],
        ``dλ̂/d log γ_s = -Cov(X, γ_s/2 |z_s - z*_s|²)``: how much of λ̂ γ takes in that site. Each
        with its Monte Carlo error, ``by_datum_error``, ``response_error`` and ``by_site_error``.

    Notes
    -----
    Derivatives at fixed β and centre, exact for the density that was sampled. The shares
    ``E[y_i]`` add up to λ̂.
    """
    if not losses.is_center:
        raise ValueError(
            "`susceptibilities` needs the centre of the result: give it to pointwise_losses as "
            "`center`."
        )
    beta, gammas = losses.inverse_temperature, losses.localization()
    llc = draws_of(losses.draws, "llc")[..., None]
    columns: dict[str, list[np.ndarray]] = {}
    for _, excess, _ in losses:
        response, response_error = covariances(-llc, beta * excess)
        total, error = means_less_covariances(llc, beta * excess)
        found = {"by_datum": total, "by_datum_error": error}
        found |= {"response": response, "response_error": response_error}
        for name, values in found.items():
            columns.setdefault(name, []).append(values[0])
    penalties = {
        name: gammas.get(name, 0.0) * half  # of a fixed site both are zero
        for name, half in _half_squares(losses).items()
    }
    site, site_error = covariances(-llc, np.stack(list(penalties.values()), axis=-1))
    by_datum = {k: ("datum", np.concatenate(v)) for k, v in columns.items()}
    return xr.Dataset(
        {**by_datum, "by_site": ("site", site[0]), "by_site_error": ("site", site_error[0])},
        coords={"datum": np.arange(losses.num_rows), "site": list(penalties)},
        attrs={"inverse_temperature": beta},
    )


def _half_squares(losses: PointwiseLosses) -> dict[str, np.ndarray]:
    """``½ |z_s - z*_s|²`` of each site, ``[chain, draw]``."""

    def of(leaf: ArrayLike, center: ArrayLike) -> np.ndarray:
        apart = np.asarray(leaf, np.float64) - np.asarray(center, np.float64)
        squares: np.ndarray = 0.5 * (apart.reshape(len(apart), -1) ** 2).sum(axis=1)
        return squares.reshape(losses.shape)

    return {
        name: sum(
            map(of, jax.tree.leaves(z), jax.tree.leaves(losses.reference[name])),
            np.zeros(losses.shape),
        )
        for name, z in losses.positions.items()
    }
