"""From `kernel=` to a :class:`Sampler`."""

from functools import cache, partial
from typing import Any

from numpyro.infer import HMC, NUTS
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_positive
from numpyro_llc.kernels._kernel import StochasticKernel
from numpyro_llc.kernels._numpyro import NumpyroSampler, check_kernel
from numpyro_llc.kernels._sampler import Sampler
from numpyro_llc.kernels._stochastic import StochasticSampler
from numpyro_llc.kernels.psgld import PSGLD
from numpyro_llc.kernels.sgd import SGD
from numpyro_llc.kernels.sgld import SGLD
from numpyro_llc.kernels.sgnht import SGNHT

# HMC takes trajectory_length, 2π by default, for num_steps times the step: one step would be all.
_MALA = partial(HMC, num_steps=1, trajectory_length=None)
_NUMPYRO = {"nuts": NUTS, "hmc": HMC, "mala": _MALA}
_STOCHASTIC = {"sgld": SGLD, "psgld": PSGLD, "sgnht": SGNHT, "sgd": SGD}
KERNEL_NAMES = (*_NUMPYRO, *_STOCHASTIC)
TARGET_ACCEPT_PROB = 0.99
"""Singular posteriors have thin arms, which a larger step skips. On K = w1² w2⁴ at n = 10⁴ the
bias of λ̂ was -14 % at 0.8, -5 % at 0.95 and -2 % (within its error) at 0.99:
``tests/benchmarks/acceptance.py``."""


@cache
def _named(name: str, step_size: float | None) -> MCMCKernel:
    """The same object for the same settings, so that nothing compiles twice."""

    def potential(z: Any) -> Any:
        raise RuntimeError("The kernel was not bound to a target.")

    settings = {} if step_size is None else {"step_size": step_size}
    return _NUMPYRO[name](potential_fn=potential, target_accept_prob=TARGET_ACCEPT_PROB, **settings)


def make_sampler(
    kernel: Any, *, num_warmup: int, num_chains: int, step_size: Any, batch_size: Any
) -> Sampler:
    """Resolve `kernel`, a name or a kernel object, and refuse what does not go with it.

    For "nuts", "hmc" and "mala" `step_size` is the first step of the warm-up, which adapts it.
    """
    if isinstance(kernel, str) and kernel in _STOCHASTIC:
        return _STOCHASTIC[kernel](step_size=step_size, batch_size=batch_size).sampler
    if isinstance(kernel, StochasticKernel):
        return _of_object(kernel, step_size, batch_size)
    if isinstance(kernel, str):
        sampler = NumpyroSampler(_by_name(kernel, step_size), num_warmup)
    else:
        _check_object(kernel, step_size)
        sampler = NumpyroSampler(kernel, num_warmup)
    if batch_size is not None:
        raise ValueError(
            f"`batch_size` needs a stochastic-gradient kernel ({', '.join(_STOCHASTIC)}); "
            f"{kernel!r} uses the full data. Leave it out."
        )
    if sampler.is_ensemble and num_chains % 2:
        raise ValueError(
            f"`num_chains` must be even for the ensemble kernel {type(kernel).__name__}; got "
            f"{num_chains}."
        )
    return sampler


def _of_object(kernel: StochasticKernel, step_size: Any, batch_size: Any) -> StochasticSampler:
    for name, value in (("step_size", step_size), ("batch_size", batch_size)):
        if value is not None:
            raise ValueError(f"`{name}` belongs to the kernel object here: SGLD({name}=…).")
    return kernel.sampler


def in_axes_of(kernel: Any, in_axes: Any) -> Any:
    """The axes of the rows, given beside a kernel's name, or in a kernel object."""
    if not isinstance(kernel, StochasticKernel):
        return in_axes
    if in_axes is not None:
        raise ValueError("`in_axes` belongs to the kernel object here: SGLD(in_axes=…).")
    return kernel.in_axes


def _by_name(name: str, step_size: Any) -> MCMCKernel:
    if name not in KERNEL_NAMES:
        raise ValueError(
            f"`kernel` {name!r} is unknown. Choose one of {', '.join(KERNEL_NAMES)}, or give a "
            "NumPyro kernel object such as NUTS(model, dense_mass=True)."
        )
    if step_size is not None:
        step_size = check_positive("step_size", step_size, meaning="Leave it out to adapt it.")
    return _named(name, step_size)


def _check_object(kernel: Any, step_size: Any) -> None:
    if not isinstance(kernel, MCMCKernel):
        raise TypeError(
            f"`kernel` must be a name ({', '.join(KERNEL_NAMES)}) or a NumPyro MCMC kernel object; "
            f"got {kernel!r}. Of a class, give an object: NUTS(model)."
        )
    check_kernel(kernel)
    if step_size is not None:
        raise ValueError("`step_size` belongs to the kernel object here: NUTS(model, step_size=…).")
