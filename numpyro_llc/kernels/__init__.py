"""Samplers: what the loop needs of a kernel, and the kernels by name."""

from numpyro_llc.kernels._numpyro import kernel_statistics
from numpyro_llc.kernels._registry import KERNEL_NAMES, make_sampler
from numpyro_llc.kernels._sampler import Sampler

__all__ = ["KERNEL_NAMES", "Sampler", "kernel_statistics", "make_sampler"]
