"""Samplers: what the loop needs of a kernel, and the kernels by name."""

from numpyro_llc.kernels._acceptance import metropolis_report
from numpyro_llc.kernels._kernel import check_batch_size
from numpyro_llc.kernels._numpyro import kernel_statistics
from numpyro_llc.kernels._registry import KERNEL_NAMES, in_axes_of, make_sampler
from numpyro_llc.kernels._sampler import Sampler
from numpyro_llc.kernels._stochastic import StochasticSampler
from numpyro_llc.kernels.psgld import PSGLD
from numpyro_llc.kernels.sgd import SGD
from numpyro_llc.kernels.sgld import SGLD
from numpyro_llc.kernels.sgnht import SGNHT

__all__ = [
    "KERNEL_NAMES",
    "PSGLD",
    "SGD",
    "SGLD",
    "SGNHT",
    "Sampler",
    "StochasticSampler",
    "check_batch_size",
    "in_axes_of",
    "kernel_statistics",
    "make_sampler",
    "metropolis_report",
]
