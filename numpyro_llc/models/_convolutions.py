"""Convolutions as matrix products of patches, on CPUs.

XLA's CPU compiler brings the axes of a convolution into the order that its fast code wants in the
outermost computation alone (the pass ``ConvCanonicalization``, jaxlib 0.10). In loops and branches,
where chains are sampled, the convolutions of a gradient run many times slower. ``vmap`` over
kernels makes grouped ones of them, which are slow as well. Matrix products are fast everywhere.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from numpyro_llc.models._fingerprint import calls
from numpyro_llc.models._types import PyTree

CONVOLUTION = "conv_general_dilated"
MOST_GROWTH = 64
"""How many times the size of the image the patches may be, at most; a convolution with a kernel so
long is left as it is."""

_Method = TypeVar("_Method", bound=Callable)


def by_products(method: _Method) -> _Method:
    """A method of a program, of parameters and arrays, without convolutions where they are slow."""

    @wraps(method)
    def chosen(
        program: PyTree, z: PyTree, arrays: PyTree, *args: PyTree, **kwargs: PyTree
    ) -> PyTree:
        def function(z: PyTree, arrays: PyTree) -> PyTree:
            return method(program, z, arrays, *args, **kwargs)

        return where_slow_by_products(program, function)(z, arrays)

    return cast(_Method, chosen)


def where_slow_by_products(
    program: PyTree, function: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """A function of arrays that runs a program, without convolutions where they are slow."""
    if program.has_convolutions and jax.default_backend() == "cpu":
        return without_convolutions(function)
    return function


def without_convolutions(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The same function, with matrix products of patches in the place of its convolutions."""

    def replaced(*args: PyTree) -> PyTree:
        jaxpr, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = jaxpr_as_fun(_rewritten(jaxpr))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return replaced


def _rewritten(part: PyTree) -> PyTree:
    """A jaxpr without convolutions, those in its loops, branches and calls included."""
    if type(part) is tuple:
        return tuple(map(_rewritten, part))
    if not isinstance(part, ClosedJaxpr | Jaxpr):
        return part
    inner: PyTree = getattr(part, "jaxpr", part)
    if inner is not part:  # closed; in JAX 0.12 the two are one class
        return part.replace(jaxpr=_rewritten(inner))
    replace: PyTree = inner.replace
    return replace(eqns=[new for equation in inner.eqns for new in _equations(equation)])


def _equations(equation: JaxprEqn) -> list[JaxprEqn]:
    """What stands for an equation."""
    params = equation.params
    if equation.primitive.name == CONVOLUTION and _is_worth_it(equation):
        return _equations_of_product(equation)
    if calls(list(params.values()), CONVOLUTION):
        params = {name: _rewritten(value) for name, value in params.items()}
        return [equation.replace(params=params)]
    return [equation]


def _equations_of_product(equation: JaxprEqn) -> list[JaxprEqn]:
    def product(*values: jax.Array) -> jax.Array:
        return product_of_patches(*values, **equation.params)

    made = jax.make_jaxpr(product)(*(atom.aval for atom in equation.invars)).jaxpr
    outer = dict(zip(made.invars, equation.invars, strict=True))
    outer |= zip(made.outvars, equation.outvars, strict=True)

    def renamed(atoms: Sequence[PyTree]) -> list[PyTree]:
        return [atom if isinstance(atom, Literal) else outer.get(atom, atom) for atom in atoms]

    return [
        one.replace(invars=renamed(one.invars), outvars=renamed(one.outvars)) for one in made.eqns
    ]


def _is_worth_it(convolution: JaxprEqn) -> bool:
    aval: PyTree = convolution.invars[1].aval
    params, kernel = convolution.params, aval.shape
    taps = math.prod(kernel[axis] for axis in params["dimension_numbers"].rhs_spec[2:])
    growth = taps / math.prod(params["window_strides"])
    return params["batch_group_count"] == 1 and growth <= MOST_GROWTH


def product_of_patches(
    image: jax.Array,
    kernel: jax.Array,
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: jax.lax.ConvDimensionNumbers,
    feature_group_count: int,
    precision: PyTree,
    preferred_element_type: PyTree,
    **_: PyTree,
) -> jax.Array:
    """``jax.lax.conv_general_dilated`` of one batch group, with its parameters."""
    batch, features, *space = dimension_numbers.lhs_spec
    outputs, inputs, *taps = dimension_numbers.rhs_spec
    image = jnp.transpose(image, (batch, *space, features))
    kernel = jnp.transpose(kernel, (*taps, inputs, outputs))
    edges = [(low, high, by - 1) for (low, high), by in zip(padding, lhs_dilation, strict=True)]
    image = jax.lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    for axis, (stride, apart) in enumerate(zip(window_strides, rhs_dilation, strict=True)):
        image = _windows(image, 1 + axis, kernel.shape[axis], stride, apart)
    out, groups = image.shape[: 1 + len(space)], feature_group_count
    image = image.reshape(*out, -1, groups, kernel.shape[-2])
    kernel = kernel.reshape(image.shape[-3], kernel.shape[-2], groups, -1)
    result = jnp.einsum(
        "...kgi,kigo->...go",
        image,
        kernel,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    order = (dimension_numbers.out_spec[0], *dimension_numbers.out_spec[2:])
    place = (*order, dimension_numbers.out_spec[1])
    return jnp.moveaxis(result.reshape(*out, -1), range(len(place)), place)


def _windows(image: jax.Array, axis: int, taps: int, stride: int, apart: int) -> jax.Array:
    """The windows along an axis: what each tap of the kernel sees, on a new axis next to last."""
    count = (image.shape[axis] - apart * (taps - 1) - 1) // stride + 1
    seen = partial(jax.lax.slice_in_dim, image, stride=stride, axis=axis)
    length = stride * (count - 1) + 1
    return jnp.stack(
        [seen(apart * tap, apart * tap + length) for tap in range(taps)], axis=image.ndim - 1
    )
