"""Sums over discrete sites, with funsor: the only file that imports it.

NumPyro gives each state of a discrete site a place on an axis of its own, left of all plates, and
funsor names the axes. A log probability with named axes is a factor; the marginal likelihood is the
product of factors, summed over the axes of discrete sites and multiplied along those plates in
which a sum is shared.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_llc.models._types import Site, Trace

Tensor = Any
"""A ``funsor.Tensor``: an array with named axes, in `inputs`."""
Names = frozenset[str]

TIME, PREVIOUS, UNNAMED = "_time_", "_PREV_", "_pyro_dim_"
"""What begins NumPyro's names of the time of ``scan``, of the states one step before, and of batch
axes that no plate declares."""
IMPOSSIBLE = -1e30
"""Stands for the logarithm of zero, so that derivatives are numbers; less than this, doubled or
added to others, is infinite again."""


def require_funsor() -> ModuleType:
    """NumPyro's enumeration; an error that says what to install where funsor is missing."""
    try:
        import numpyro.contrib.funsor
    except ImportError as error:
        raise ImportError(
            "Summing out discrete latent sites needs funsor, as in NumPyro itself. Install it: "
            "python -m pip install funsor."
        ) from error
    return numpyro.contrib.funsor


def without_enum(model: Any) -> Any:
    """The model inside of NumPyro's ``enum``, if a user put it there for NumPyro's own kernels."""
    is_enum = type(model).__module__.startswith("numpyro.contrib.funsor")
    return without_enum(model.fn) if is_enum and type(model).__name__ == "enum" else model


def plain_name(name: str) -> str:
    """The name of a site in the model, of one that ``scan`` unrolled."""
    return re.sub(f"^({PREVIOUS})+", "", name)


@contextmanager
def recorded(first_dim: int) -> Iterator[Trace]:
    """Trace a model that :func:`enumerating` made, with the names of the axes of its sites."""
    funsor = require_funsor()
    with_names: Any = funsor.trace

    class Record(with_names):
        def postprocess_message(self, msg: Site) -> None:
            if msg["type"] == "sample" and msg["fn"].event_dim is not None:
                ndim = max(len(msg["fn"].batch_shape), jnp.ndim(msg["value"]) - msg["fn"].event_dim)
                # Sites without states need no names, and may have batch axes without a plate.
                if ndim < -first_dim and not msg["infer"].get("enumerate"):
                    return super(with_names, self).postprocess_message(msg)
            return super().postprocess_message(msg)

    with Record() as trace, _explained(trace), funsor.plate_to_enum_plate():
        yield trace


@contextmanager
def _explained(trace: Trace) -> Iterator[None]:
    """Say of an error of a model that ran without the axes of states what these axes are."""
    try:
        yield
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):  # it reads numbers
        raise
    except (TypeError, ValueError, IndexError) as error:
        if "free dims" in str(error):
            raise ValueError(
                "The axes of the discrete sites cannot be told apart from those of the data: "
                "declare each batch axis of the discrete and the observed sites with numpyro.plate "
                "(or end it with .to_event()), inside the function of a scan. NumPyro says: "
                f"{error}"
            ) from error
        seen = [name for name, site in trace.items() if site.get("infer", {}).get("enumerate")]
        raise ValueError(
            f"The model fails where discrete latent sites {seen} have all their states at once. "
            "NumPyro puts the states on new axes, to the left of the plates. Combine such values "
            "element by element, by jnp.where or as an index, with the plates as rightmost axes; "
            "they cannot be summed or multiplied over a plate that they are in. The error is: "
            f"{error}"
        ) from error


def enumerating(model: Any, first_dim: int) -> Any:
    """`model` with all states of its discrete sites at once, on axes from `first_dim` leftwards."""
    funsor = require_funsor()
    enum: Any = funsor.enum

    class Enumerate(enum):
        def process_message(self, msg: Site) -> None:
            was_done = msg.get("done", False)
            super().process_message(msg)
            if msg.get("done", False) and not was_done:  # NumPyro counts the states from zero
                support = msg["fn"].enumerate_support(expand=False).reshape(-1)
                msg["value"] = support[msg["value"]]

    return Enumerate(funsor.config_enumerate(model), first_dim)


def named(site: Site) -> Tensor:
    """The log probability of a site of an enumerated trace, its axes named."""
    import funsor

    log_prob = site["fn"].log_prob(site["value"])
    log_prob = log_prob.astype(jnp.promote_types(log_prob.dtype, jnp.float32))
    log_prob = jnp.where(jnp.isneginf(log_prob), IMPOSSIBLE, log_prob)
    names = site["infer"]["dim_to_name"]
    squeezed = tuple(
        axis
        for axis, size in enumerate(log_prob.shape)
        if axis - log_prob.ndim not in names and size == 1
    )
    axes = [names[axis - log_prob.ndim] for axis in range(log_prob.ndim) if axis not in squeezed]
    log_prob = log_prob.squeeze(squeezed)
    inputs = {name: funsor.Bint[n] for name, n in zip(axes, log_prob.shape, strict=True)}
    return funsor.Tensor(log_prob, inputs)


class Intractable(ValueError):
    """The sum cannot be taken state by state of each site."""


def log_sum(factors: Sequence[Tensor], variables: Names, kept: Names) -> Tensor:
    """``log Σ exp Σ factors`` over `variables`, with no other axes than `kept` left."""
    return _total(_eliminate(_without_time(factors, variables), variables & _names(factors), kept))


def as_array(log_prob: Tensor, sizes: Mapping[str, int]) -> jax.Array:
    """An array with the axes of `sizes`, in this order; impossible is minus infinity again."""
    import funsor

    places = {name: k - len(sizes) for k, name in enumerate(sizes)}
    array = jnp.asarray(funsor.to_data(log_prob, name_to_dim=places))
    array = jnp.broadcast_to(array, tuple(sizes.values()))
    return jnp.where(array < IMPOSSIBLE / 2, -jnp.inf, array)


def _total(factors: Sequence[Tensor]) -> Tensor:
    return reduce(lambda a, b: a + b, factors)


def _names(factors: Sequence[Tensor]) -> Names:
    return frozenset(name for factor in factors for name in factor.inputs)


def _sum_out(factors: Sequence[Tensor], names: Names) -> Tensor:
    from funsor import ops

    return _total(factors).reduce(ops.logaddexp, names)


def _eliminate(factors: Sequence[Tensor], variables: Names, kept: Names) -> list[Tensor]:
    """Factors without `variables`, and without plates other than `kept`.

    From the inmost plates outwards: there, the variables one by one, those with the smallest
    product of factors first; then the product along the plates that no variable left is in.
    """
    from funsor import ops

    def plates(factor: Tensor) -> Names:
        return frozenset(factor.inputs) - variables - kept

    plates_of = {
        v: frozenset.intersection(*(plates(f) for f in factors if v in f.inputs)) for v in variables
    }
    pool = list(factors)
    while any(plates(f) or variables & frozenset(f.inputs) for f in pool):
        leaf = max(map(plates, pool), key=len)
        here = [f for f in pool if plates(f) == leaf]
        pool = [f for f in pool if plates(f) != leaf]
        for factor in _sum_in_turn(here, frozenset(v for v in variables if plates_of[v] == leaf)):
            left = [plates_of[v] for v in variables & frozenset(factor.inputs)]
            outer = frozenset().union(*left)
            if left and outer == leaf:
                raise Intractable
            pool.append(factor.reduce(ops.add, leaf - outer))
    return pool


def _sum_in_turn(factors: Sequence[Tensor], variables: Names) -> list[Tensor]:
    """Sum the variables out one by one, the cheapest first."""

    def cost(name: str) -> tuple[int, str]:
        inputs = {k: d.size for f in factors if name in f.inputs for k, d in f.inputs.items()}
        return reduce(lambda a, b: a * b, inputs.values(), 1), name

    factors, left = list(factors), variables & _names(factors)
    while left:
        name = min(left, key=cost)
        touched = [f for f in factors if name in f.inputs]
        factors = [f for f in factors if name not in f.inputs]
        factors.append(_sum_out(touched, frozenset({name})))
        left = left - {name}
    return factors


def _without_time(factors: Sequence[Tensor], variables: Names) -> list[Tensor]:
    """Replace the factors along the time of each ``scan`` by one from its first to its last state.

    Where no state depends on the one before, time is a plate like others, and stays.
    """
    factors = list(factors)
    for time in sorted(name for name in _names(factors) if name.startswith(TIME)):
        along = [f for f in factors if time in f.inputs]
        names = _names(along)
        chained = {plain_name(name) for name in names if name.startswith(PREVIOUS)}
        if chained:
            chain = frozenset(name for name in names if plain_name(name) in chained)
            others = [f for f in factors if time not in f.inputs]
            factors = [*others, _chain(along, others, variables, chain, time)]
    return factors


def _chain(
    along: Sequence[Tensor], others: Sequence[Tensor], variables: Names, chain: Names, time: str
) -> Tensor:
    own = (variables & _names(along)) - _names(others) - chain
    outer = (variables & _names(along)) - own - chain

    def plates_of(name: str, factors: Sequence[Tensor]) -> Names:
        return frozenset.intersection(
            *(frozenset(f.inputs) - variables for f in factors if name in f.inputs)
        )

    plates = {plates_of(name, along) for name in chain}
    (kept, *rest) = plates
    if rest or any(not plates_of(name, others) <= kept for name in outer):
        raise Intractable
    steps = _total(_eliminate(along, own, kept | chain | outer))
    return _along(steps, time, chain)


def _along(steps: Tensor, time: str, chain: Names) -> Tensor:
    """The product of the steps of a Markov chain in time, halved again and again."""
    from funsor import Cat, Slice, Variable, ops
    from funsor.sum_product import sarkka_bilmes_product

    if any(name.startswith(2 * PREVIOUS) for name in chain):  # a state depends on more than one
        fixed = frozenset(steps.inputs) - chain - {time}
        whole = Variable(time, steps.inputs[time])
        return sarkka_bilmes_product(ops.logaddexp, ops.add, steps, whole, fixed)
    current = [name for name in sorted(chain) if not name.startswith(PREVIOUS)]
    between = {name: f"_between_{name}" for name in current}
    before = {PREVIOUS + name: middle for name, middle in between.items()}
    while (count := steps.inputs[time].size) > 1:
        pairs = count // 2 * 2
        first = steps(**{time: Slice(time, 0, pairs, 2, count)})(**between)
        second = steps(**{time: Slice(time, 1, pairs, 2, count)})(**before)
        joined = _sum_out([first, second], frozenset(between.values()))
        if count > pairs:
            joined = Cat(time, (joined, steps(**{time: Slice(time, pairs, count, 1, count)})))
        steps = joined
    return steps(**{time: 0})
