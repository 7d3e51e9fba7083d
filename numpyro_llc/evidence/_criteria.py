"""``wbic``, ``local_free_energy``, ``bic``: estimates of the free energy from one result."""

from dataclasses import dataclass
from math import hypot, log

from numpyro_llc.errors import warn
from numpyro_llc.estimators import ESTIMATORS, check_multiplicity, rows_of
from numpyro_llc.inference_data import InferenceData, draws_of, monte_carlo, posterior
from numpyro_llc.results import penalty_of, report_of, virial_of

_TOLERANCE = 0.01
"""Relative difference of β from 1/log(n) that counts as none: ``dλ̂/d ln β`` is ``λ̂ - Var[llc]``, so
that λ̂ changes by no more than about this share of itself."""


@dataclass(frozen=True)
class FreeEnergy:
    """A free energy, ``-log ∫ exp(-nL) φ dw``, or an approximation of one. Smaller is better.

    Attributes
    ----------
    value : float
        In nats, for all n data.
    error : float
        Its Monte Carlo standard error, in nats; 0 where nothing was sampled.
    loss : float
        ``nL(w*)`` at the centre, in nats: `value` less what complexity adds.
    num_data : int
        n.
    criterion : str
        The function that gave it.
    """

    value: float
    error: float
    loss: float
    num_data: int
    criterion: str

    @property
    def complexity(self) -> float:
        """``value - loss``, in nats: the price of the model's complexity."""
        return self.value - self.loss


def wbic(idata: InferenceData) -> FreeEnergy:
    r"""``E_β[nL(w)]`` at ``β = 1/log(n)``: the WBIC of Watanabe (2013), JMLR 14:867-897.

    Parameters
    ----------
    idata
        A result of :func:`~numpyro_llc.estimate_llc` at its default β, or of ``from_numpyro``.

    Returns
    -------
    FreeEnergy

    Raises
    ------
    ValueError
        If the draws are not at ``β = 1/log(n)``.

    Notes
    -----
    It is ``nL(w*) + λ̂ log(n)``, with the λ̂ of the draws. It differs from the free energy by a term
    of order 1, which depends on the prior and the curvature, by ``(m - 1) log log(n)`` for a
    multiplicity m, and in singular models by a random term of order ``sqrt(log n)`` from the data.
    `error` covers none of these. The draws are of the density around one centre, so the free energy
    is that of the region there; where it has k copies by symmetry, the sum of all is lower by
    ``log k``.
    """
    report = report_of(idata)
    given, wanted = report.number("inverse_temperature"), 1.0 / log(report.number("num_data"))
    if abs(given - wanted) > _TOLERANCE * wanted:
        raise ValueError(
            f"`wbic` needs draws at inverse_temperature = 1/log(n) = {wanted:.5g}; this result has "
            f"{given:.5g}. Leave `inverse_temperature` out of estimate_llc."
        )
    value, error = _llc(idata, "mean", None)
    return _at_center(idata, "wbic", value / given, error / given)


def local_free_energy(
    idata: InferenceData, multiplicity: int | None = None, *, estimator: str = "mean"
) -> FreeEnergy:
    r"""``nL(w*) + λ̂ log(n) - (m - 1) log log(n)``: the free energy of the region around ``w*``.

    Parameters
    ----------
    idata
        A result of :func:`~numpyro_llc.estimate_llc` or ``from_numpyro``, at any β.
    multiplicity : int, optional
        m, where it is known; without it the last term is left out, as with m = 1.
    estimator : str
        The estimator of λ, a name in :data:`numpyro_llc.estimators.ESTIMATORS`.

    Returns
    -------
    FreeEnergy

    Notes
    -----
    The leading terms of the expansion in n (Watanabe 2009, Main Theorem 6.2). Not covered, neither
    by `value` nor by `error`: the constant of order 1, in which prior, curvature and the volume of
    the set of minima stand, and which the data shift. Differences below a few nats may be due to
    it, whatever their error. ``free_energy`` of a
    :func:`~numpyro_llc.evidence.temperature_ladder` has it.
    A mean λ̂ is low by ``(m - 1)/log(nβ)`` where m exceeds one, which is of order 1 here too.
    """
    if multiplicity is not None:
        check_multiplicity(multiplicity)
    value, error = _llc(idata, estimator, multiplicity)
    order = log(report_of(idata).number("num_data"))
    complexity = value * order - ((multiplicity or 1) - 1) * log(order)
    return _at_center(idata, "local_free_energy", complexity, error * order)


def bic(idata: InferenceData) -> FreeEnergy:
    """``nL(w*) + d/2 log(n)``: half of what is usually called BIC, for comparison with the others.

    Parameters
    ----------
    idata
        A result of :func:`~numpyro_llc.estimate_llc` or ``from_numpyro`` at a maximum of the
        likelihood. d is `num_parameters`, all unconstrained parameters of the program.

    Returns
    -------
    FreeEnergy
        Without error: no draw enters.

    Notes
    -----
    Schwarz (1978), Annals of Statistics 6:461-464. Not valid where the Hessian at ``w*`` or at the
    true parameters is singular.
    """
    report = report_of(idata)
    complexity = 0.5 * report.number("num_parameters") * log(report.number("num_data"))
    return _at_center(idata, "bic", complexity, 0.0)


def _at_center(idata: InferenceData, criterion: str, complexity: float, error: float) -> FreeEnergy:
    report = report_of(idata)
    if report.truth == "center":
        raise ValueError(
            f"`{criterion}` is a free energy of data, and this result has truth='center', where "
            "the predictions of the model at the centre replace the data. Localize with "
            "truth='data', and run again."
        )
    if report.from_stream:
        raise ValueError(
            f"`{criterion}` needs the loss at the centre of all the data, and this result, of a "
            "stream of batches, has that of its `evaluation` alone. Sum the loss of all rows, and "
            "add λ̂ log(n) to it."
        )
    loss, num_data = report.number("center_loss"), int(report.number("num_data"))
    return FreeEnergy(loss + complexity, error, loss, num_data, criterion)


def _llc(idata: InferenceData, estimator: str, multiplicity: int | None) -> tuple[float, float]:
    """λ̂ and its error, that of evaluating a part of the data included."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"`estimator` must be one of {list(ESTIMATORS)}; got {estimator!r}.")
    llc = draws_of(posterior(idata), "llc")
    penalty, remedy = penalty_of(idata)
    known = {"penalty": penalty, "multiplicity": multiplicity, "virial": virial_of(idata)}
    rows, findings = rows_of(estimator, llc, known, {"penalty": remedy}, monte_carlo, errors=1.0)
    if findings:
        warn(" ".join(findings))
    row = rows[estimator]
    return row.mean, hypot(row.mcse_mean, report_of(idata).evaluation_error or 0.0)
