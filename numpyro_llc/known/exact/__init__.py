"""Exact values: what λ̂ should be, for models simple enough to know.

Learning coefficients λ with their multiplicity m, as fractions, are the limit of infinite data
(:func:`regular`, :func:`normal_crossing`, :func:`newton_polyhedron`,
:func:`reduced_rank_regression`, ...). Expectations and variances of ``llc`` at finite n and γ are
what a sampler must reproduce, to its Monte Carlo error (:func:`gaussian_linear`,
:func:`product_of_powers`, :func:`rank_two_product`, :func:`quadrature`). The two differ: where
m > 1 by an amount that falls like ``(m - 1) / log n`` only. Data are noise-free unless the loss
says otherwise: an expectation here is for the loss as given, not an average over data sets.
"""

from numpyro_llc.known.exact.adaptive import quadrature
from numpyro_llc.known.exact.factors import factor_analysis, factor_analysis_bound
from numpyro_llc.known.exact.gaussian import gaussian_linear
from numpyro_llc.known.exact.linear_networks import (
    deep_linear_network,
    matrix_factorization,
    reduced_rank_regression,
)
from numpyro_llc.known.exact.mixtures import (
    binomial_mixture,
    latent_class,
    normal_mixture,
    poisson_mixture,
)
from numpyro_llc.known.exact.monomials import newton_polyhedron, normal_crossing, regular
from numpyro_llc.known.exact.networks import tanh_network
from numpyro_llc.known.exact.products import product_of_powers
from numpyro_llc.known.exact.rank_two import rank_two_product
from numpyro_llc.known.exact.values import Expectation, LearningCoefficient, independent

__all__ = [
    "Expectation",
    "LearningCoefficient",
    "binomial_mixture",
    "deep_linear_network",
    "factor_analysis",
    "factor_analysis_bound",
    "gaussian_linear",
    "independent",
    "latent_class",
    "matrix_factorization",
    "newton_polyhedron",
    "normal_crossing",
    "normal_mixture",
    "poisson_mixture",
    "product_of_powers",
    "quadrature",
    "rank_two_product",
    "reduced_rank_regression",
    "regular",
    "tanh_network",
]
