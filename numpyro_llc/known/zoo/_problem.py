"""A model at a point where the learning coefficient is known."""

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import jax
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from numpyro_llc._checks import check_integer, check_num_data
from numpyro_llc.known import exact
from numpyro_llc.models import Parameters, PyTree, Site

FiniteN = Callable[..., exact.Expectation]
"""From the keywords `num_data`, `localization`, `inverse_temperature` to the law of λ̂."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A NumPyro model, its data and a point of known learning coefficient.

    It runs as it is: ``estimate_llc(rng_key, p.model, p.model_args, center=p.center,
    num_data=p.num_data)``.

    Parameters
    ----------
    model : callable
        A NumPyro model.
    model_args : tuple
        Its arguments, data included.
    center : dict
        ``w*``: a constrained value for each site, a minimum of the loss.
    num_data : int
        n, at least 2. The weights of the rows add up to it.
    learning_coefficient : exact.LearningCoefficient, optional
        λ and m of the loss at `center`; None where they are not known.
    finite_n : callable, optional
        Called with the keywords ``num_data``, ``localization`` and ``inverse_temperature``, returns
        the :class:`~numpyro_llc.exact.Expectation` of λ̂.
    source : str
        Where the values are from.
    name, description : str
        Filled in by :func:`load`.
    """

    model: Callable[..., None] = field(repr=False)
    model_args: tuple[object, ...] = field(repr=False)
    center: Mapping[str, PyTree] = field(repr=False)
    num_data: int
    learning_coefficient: exact.LearningCoefficient | None = None
    finite_n: FiniteN | None = field(default=None, repr=False)
    source: str = ""
    name: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise TypeError(f"`model` must be a NumPyro model, a function; got {self.model!r}.")
        check_num_data(self.num_data)
        if not isinstance(self.model_args, tuple):
            raise TypeError(f"`model_args` must be a tuple; got {type(self.model_args).__name__}.")
        if not isinstance(self.center, Mapping):
            raise TypeError(
                f"`center` must be a dict {{site: value}}; got {type(self.center).__name__}."
            )
        if not isinstance(self.learning_coefficient, exact.LearningCoefficient | None):
            raise TypeError(
                "`learning_coefficient` must be an exact.LearningCoefficient(value, multiplicity) "
                f"or None; got {self.learning_coefficient!r}."
            )
        if self.learning_coefficient is not None:
            _check_coefficient(*self.learning_coefficient)
        if not (self.finite_n is None or callable(self.finite_n)):
            raise TypeError(
                "`finite_n` must be a function that returns an exact.Expectation, or None; got "
                f"{self.finite_n!r}."
            )
        for name in ("source", "name", "description"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"`{name}` must be a text; got {getattr(self, name)!r}.")

    def expectation(
        self, localization: float = 1.0, inverse_temperature: float | None = None
    ) -> exact.Expectation | None:
        """Exact mean and variance of β (nL(z) - nL(z*)) at this n; None where they are not known.

        Parameters
        ----------
        localization : float
            γ > 0.
        inverse_temperature : float, optional
            β; ``1 / log(num_data)`` if left out.
        """
        if self.finite_n is None:
            return None
        return self.finite_n(
            num_data=self.num_data,
            localization=localization,
            inverse_temperature=inverse_temperature,
        )

    @property
    def has_expectation(self) -> bool:
        """Whether :meth:`expectation` is known."""
        return self.finite_n is not None

    @property
    def num_parameters(self) -> int:
        """d, the number of unconstrained parameters."""
        sizes: list[int] = []

        def look(center: Parameters) -> None:
            model = handlers.substitute(handlers.seed(self.model, rng_seed=0), data=center)
            with handlers.block():
                trace = handlers.trace(model).get_trace(*self.model_args)
            sizes.extend(_size(site) for name, site in trace.items() if name in center)

        jax.eval_shape(look, dict(self.center))
        return sum(sizes)


def _check_coefficient(value: Fraction | float, multiplicity: int) -> None:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise ValueError(
            "`learning_coefficient` must have a λ that is finite and at least 0, such as "
            f"Fraction(1, 2); got {value!r}."
        )
    check_integer("learning_coefficient", multiplicity, minimum=1, meaning="Its multiplicity is m.")


def independent(*parts: FiniteN) -> FiniteN:
    """The expectation of a sum of losses of separate parameters, from theirs."""
    return lambda **settings: exact.independent(*(part(**settings) for part in parts))


def _size(site: Site) -> int:
    """The number of unconstrained values of a parameter site."""
    is_param = site["type"] == "param"
    support = site["kwargs"].get("constraint", constraints.real) if is_param else site["fn"].support
    transform = biject_to(support)
    leaves = jax.tree.leaves(site["value"])
    return sum(int(np.prod(transform.inverse_shape(np.shape(leaf)))) for leaf in leaves)
