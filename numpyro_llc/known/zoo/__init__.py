"""Models with a point whose learning coefficient λ is known, to check an estimator against.

``zoo.table()`` is a table of them. Each is a :class:`Problem` that runs as it is::

    p = zoo.load("tanh_unit", num_data=1000)
    idata = estimate_llc(rng_key, p.model, p.model_args, center=p.center, num_data=p.num_data)
    p.learning_coefficient   # λ = 1/2, m = 2
    p.expectation()          # what λ̂ is at this n, β and γ: its exact mean and variance

Each loss is a function of the parameters alone: the data are designed and free of noise, or all
outcomes with their probabilities. n enters by the weights of a few rows, so that a step costs the
same at every n (an expectation by quadrature takes longer at large n); but a kernel that takes
batches then takes some of these rows, not some of n data. A problem of your own joins them by a
function of `num_data`::

    @zoo.register
    def tenth_power(num_data):
        '''One parameter, loss w¹⁰.'''
        def model(weight):
            w = numpyro.sample("w", dist.Normal(0.0, 1.0))
            with numpyro.handlers.scale(scale=weight):
                numpyro.sample("y", dist.Normal(2**0.5 * w**5, 1.0), obs=0.0)
        known = exact.normal_crossing((5,))
        finite_n = partial(exact.product_of_powers, (5,))
        return zoo.Problem(
            model, (jnp.asarray(num_data),), {"w": 0.0}, num_data, known, finite_n
        )

:func:`deep_linear_network` and :func:`random_deep_linear_networks` make networks of any size.
"""

from numpyro_llc.known.zoo import (  # noqa: F401 -- each registers its problems
    _matrices,
    _mixtures,
    _networks,
    _polynomials,
    _regressions,
)
from numpyro_llc.known.zoo._linear_networks import deep_linear_network
from numpyro_llc.known.zoo._problem import Problem
from numpyro_llc.known.zoo._random_networks import random_deep_linear_networks
from numpyro_llc.known.zoo._registry import load, names, register, table

BUILT_IN = frozenset(names())
"""The names that every process knows which imports this package."""
__all__ = [
    "Problem",
    "deep_linear_network",
    "load",
    "names",
    "random_deep_linear_networks",
    "register",
    "table",
]
