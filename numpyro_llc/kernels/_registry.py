"""From `kernel=` to a :class:`Sampler`."""

from functools import cache, partial

import jax
from numpyro.infer import HMC, NUTS
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc.kernels._kernel import StochasticKernel
from numpyro_llc.kernels._numpyro import NumpyroSampler, check_kernel
from numpyro_llc.kernels._sampler import Sampler
from numpyro_llc.kernels.psgld import PSGLD
from numpyro_llc.kernels.sgd import SGD
from numpyro_llc.kernels.sgld import SGLD
from numpyro_llc.kernels.sgnht import SGNHT
from numpyro_llc.models import Parameters, Stream

# HMC takes trajectory_length, 2π by default, for num_steps times the step: one step would be all.
_MALA = partial(HMC, num_steps=1, trajectory_length=None)
_NUMPYRO = {"nuts": NUTS, "hmc": HMC, "mala": _MALA}
_STOCHASTIC = {"sgld": SGLD, "psgld": PSGLD, "sgnht": SGNHT, "sgd": SGD}
STOCHASTIC_NAMES = tuple(_STOCHASTIC)
KERNEL_NAMES = (*_NUMPYRO, *STOCHASTIC_NAMES)
TARGET_ACCEPT_PROB = 0.99
"""Singular posteriors have thin arms, which a larger step skips. On K = w1² w2⁴ at n = 10⁴ the
bias of λ̂ was -14 % at 0.8, -8 % at 0.95 and -2 % (within its error) at 0.99:
``tests/benchmarks/acceptance.py``."""


RECOMMENDED = "sgnht"
"""The kernel for minibatches where none is named: on deep linear networks of 10⁴ parameters it is
within 1 % of the exact λ where "sgld" has R-hat 1.5: ``tests/benchmarks/deep_linear_networks.py``.
"""


@cache
def _named(name: str) -> MCMCKernel:
    """The same object for the same name, so that nothing compiles twice."""

    def potential(z: Parameters) -> jax.Array:
        raise RuntimeError("The kernel was not bound to a target.")

    return _NUMPYRO[name](potential_fn=potential, target_accept_prob=TARGET_ACCEPT_PROB)


def kernel_of(
    kernel: str | MCMCKernel | None, batch_size: int | None = None, model_args: object = ()
) -> MCMCKernel:
    """Resolve what a user gives as `kernel`, with the one setting that may stand beside a name.

    None is NUTS on the full data, and ``RECOMMENDED`` with a batch size, or on a stream of batches.
    """
    if kernel is None:
        is_full = batch_size is None and not isinstance(model_args, Stream)
        kernel = "nuts" if is_full else RECOMMENDED
    if isinstance(kernel, str) and kernel in _STOCHASTIC:
        return _STOCHASTIC[kernel](batch_size=batch_size)
    if isinstance(kernel, str):
        if kernel not in KERNEL_NAMES:
            raise ValueError(
                f"`kernel` {kernel!r} is unknown. Choose one of {', '.join(KERNEL_NAMES)}, or give "
                "a kernel object such as SGNHT(batch_size=256) or NUTS(model, dense_mass=True)."
            )
        found = _named(kernel)
    elif isinstance(kernel, MCMCKernel):
        found = kernel
    else:
        raise TypeError(
            f"`kernel` must be a name ({', '.join(KERNEL_NAMES)}) or a kernel object; got "
            f"{kernel!r}. Of a class, give an object: NUTS(model)."
        )
    if batch_size is not None:
        raise ValueError(_why_no_batch(kernel))
    if not isinstance(found, StochasticKernel):
        check_kernel(found)
    return found


def _why_no_batch(kernel: str | MCMCKernel) -> str:
    if isinstance(kernel, StochasticKernel):
        name = type(kernel).__name__
        return f"`batch_size` is a setting of the kernel object: {name}(batch_size=…)."
    return (
        f"`batch_size` needs a stochastic-gradient kernel ({', '.join(_STOCHASTIC)}); {kernel!r} "
        "uses the full data. Leave one of them out."
    )


def name_of(kernel: MCMCKernel) -> str:
    """The name under which a result reports a kernel: "nuts", "sgld", ...; of others the class."""
    named = [name for name in _NUMPYRO if kernel is _named(name)]
    named += [name for name, kind in _STOCHASTIC.items() if type(kernel) is kind]
    return named[0] if named else type(kernel).__name__


def sampler_of(kernel: MCMCKernel, *, num_warmup: int, num_chains: int) -> Sampler:
    """The sampler that the loop runs."""
    if isinstance(kernel, StochasticKernel):
        return kernel.sampler
    sampler = NumpyroSampler(kernel, num_warmup)
    if sampler.is_ensemble and num_chains % 2:
        raise ValueError(
            f"`num_chains` must be even for the ensemble kernel {type(kernel).__name__}; got "
            f"{num_chains}."
        )
    return sampler
