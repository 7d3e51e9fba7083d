"""Expectations under a quadratic loss, of exact draws and of full-batch Langevin dynamics."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numpyro_llc._checks import check_positive
from numpyro_llc.known.exact.values import Expectation, effective_number, real_array

Array = NDArray[np.float64]


def gaussian_linear(
    hessian: ArrayLike,
    *,
    displacement: ArrayLike | None = None,
    step_size: float | None = None,
    num_data: int,
    localization: ArrayLike = 1.0,
    inverse_temperature: float | None = None,
) -> Expectation:
    r"""Return mean and variance of ``llc`` for a quadratic loss, such as linear regression.

    The loss is ``L(w) = L(w^) + (w - w^)' H (w - w^) / 2``. With ``c = nβ``, ``A = c H + Γ``,
    ``δ = w* - w^``, and ``v = A⁻¹ Γ δ`` the mode relative to ``w^``:

    .. math:: \mu &= \tfrac12 \operatorname{tr}(c H S) + \tfrac{c}{2} (v'Hv - δ'Hδ) \\
              \sigma &= \tfrac12 \operatorname{tr}((c H S)^2) + c^2\, v' H S H v

    S is the covariance of the draws: ``A⁻¹`` for exact draws, and ``(A - ε A²/4)⁻¹`` for the
    stationary law of ``z ← z - ε/2 ∇U + √ε ξ`` (full-batch SGLD, unadjusted Langevin).

    Parameters
    ----------
    hessian
        H of the average loss, ``[d, d]``, or its diagonal ``[d]``: ``X'X / (n s²)`` for linear
        regression with known noise s.
    displacement
        δ ``[d]``, from the minimum ``w^`` to the center ``w*``; 0 when left out.
    step_size
        ε; left out, the draws are exact.
    num_data
        n.
    localization
        Γ: a number γ for ``γ I``, a diagonal ``[d]`` or a matrix ``[d, d]``; at least 0.
    inverse_temperature
        β; 1 / log n when left out.

    Returns
    -------
    Expectation
        Mean μ and variance σ.

    Raises
    ------
    TypeError
        If a matrix does not hold real numbers.
    ValueError
        If A is not positive definite, or the step is unstable (ε times the largest eigenvalue of A
        is 4 or more).

    Notes
    -----
    Gaussian integrals. At ``w* = w^`` and ``Γ = γ I``, μ is half the sum of ``c h / (c h + γ)``
    over the eigenvalues h. It covers neither the noise of minibatches nor a run too short to be
    stationary.
    """
    c = effective_number(num_data, inverse_temperature)
    h = _symmetric("hessian", hessian)
    dim = len(h)
    precision = _precision(localization, h)
    meaning = "It leads from the minimum to the center."
    shift = (
        np.zeros(dim) if displacement is None else real_array("displacement", displacement, meaning)
    )
    if shift.shape != (dim,) or not np.isfinite(shift).all():
        raise ValueError(
            f"`displacement` must be {dim} finite numbers, one for each parameter; "
            f"got shape {shift.shape}."
        )
    eigenvalues, h, precision, shift = _diagonalize(c, h, precision, shift)
    root = np.sqrt(1.0 / (eigenvalues * _discretization(eigenvalues, step_size)))
    mode = _times(precision, shift) / eigenvalues
    excess = mode @ _times(h, mode) - shift @ _times(h, shift)
    slope = c * root * _times(h, mode)
    shrinkage = c * (root[:, None] * h * root if h.ndim == 2 else h * root**2)
    trace = np.trace(shrinkage) if h.ndim == 2 else shrinkage.sum()
    return Expectation(
        float(0.5 * trace + 0.5 * c * excess),
        float(0.5 * np.sum(shrinkage**2) + np.sum(slope**2)),
    )


def _diagonalize(
    c: float, h: Array, precision: Array, shift: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the eigenvalues of ``c H + Γ``, and H, Γ and δ in its eigenbasis."""
    if h.ndim == precision.ndim == 1:
        return c * h + precision, h, precision, shift
    h, precision = (x if x.ndim == 2 else np.diag(x) for x in (h, precision))
    eigenvalues, basis = np.linalg.eigh(c * h + precision)
    return eigenvalues, basis.T @ h @ basis, basis.T @ precision @ basis, basis.T @ shift


def _times(matrix: Array, vector: Array) -> Array:
    """Multiply by a matrix, or by the diagonal of one."""
    product: Array = matrix @ vector if matrix.ndim == 2 else matrix * vector
    return product


def _discretization(eigenvalues: Array, step_size: float | None) -> Array:
    """Return ``1 - ε α / 4``, by which a step of ε inflates the variance along each direction."""
    if not eigenvalues.min() > 0:
        raise ValueError(
            "`localization` must make nβ `hessian` + `localization` positive definite; got a "
            f"smallest eigenvalue of {eigenvalues.min():.3g}. Raise it."
        )
    if step_size is None:
        return np.ones_like(eigenvalues)
    step = check_positive("step_size", step_size, meaning="It is ε of z ← z - ε/2 ∇U + √ε ξ.")
    limit = 4.0 / eigenvalues.max()
    if step >= limit:
        raise ValueError(
            f"`step_size` must be below {limit:.3g}, where the recursion becomes unstable; "
            f"got {step_size!r}."
        )
    factors: Array = 1.0 - 0.25 * step * eigenvalues
    return factors


def _symmetric(name: str, matrix: ArrayLike) -> Array:
    array = real_array(name, matrix, "Give a matrix, or its diagonal.")
    square = array.ndim == 2 and array.shape[0] == array.shape[1]
    if not (array.ndim == 1 or square) or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be a square matrix or a vector of finite numbers; "
            f"got shape {array.shape}. A vector is taken as a diagonal."
        )
    if square and not np.allclose(array, array.T, rtol=1e-8, atol=1e-12 * np.abs(array).max()):
        raise ValueError(
            f"`{name}` must be symmetric. Average x and x.T if only rounding is to blame."
        )
    return 0.5 * (array + array.T) if square else array


def _precision(localization: ArrayLike, hessian: Array) -> Array:
    meaning = "It is the precision of the Gaussian around the center."
    if np.ndim(localization) == 0:
        number = check_positive("localization", localization, meaning=meaning, zero=True)
        return np.full(len(hessian), number)
    precision = _symmetric("localization", localization)
    if len(precision) != len(hessian):
        raise ValueError(
            f"`localization` must be a number or have {len(hessian)} rows as `hessian`; "
            f"got shape {precision.shape}."
        )
    values = precision if precision.ndim == 1 else np.linalg.eigvalsh(precision)
    if values.min() < -1e-12 * np.abs(values).max():
        raise ValueError(
            f"`localization` must be at least 0; got {values.min():.3g}, the smallest entry or "
            f"eigenvalue. {meaning}"
        )
    return precision
