"""Samplers: what the loop needs of a kernel, and the kernels by name."""

from numpyro_llc.kernels._acceptance import metropolis_report
from numpyro_llc.kernels._ahead import bytes_ahead, steps
from numpyro_llc.kernels._kernel import StochasticKernel
from numpyro_llc.kernels._noise import HUGE
from numpyro_llc.kernels._numpyro import kernel_statistics
from numpyro_llc.kernels._registry import (
    KERNEL_NAMES,
    RECOMMENDED,
    STOCHASTIC_NAMES,
    kernel_of,
    name_of,
    sampler_of,
)
from numpyro_llc.kernels._sampler import Sampler
from numpyro_llc.kernels._stochastic import StochasticSampler
from numpyro_llc.kernels.psgld import PSGLD
from numpyro_llc.kernels.sgd import SGD
from numpyro_llc.kernels.sgld import SGLD
from numpyro_llc.kernels.sgnht import SGNHT

__all__ = [
    "HUGE",
    "KERNEL_NAMES",
    "PSGLD",
    "RECOMMENDED",
    "SGD",
    "SGLD",
    "SGNHT",
    "STOCHASTIC_NAMES",
    "Sampler",
    "StochasticKernel",
    "StochasticSampler",
    "bytes_ahead",
    "kernel_of",
    "kernel_statistics",
    "metropolis_report",
    "name_of",
    "sampler_of",
    "steps",
]
