"""A pytree of parameters as a function takes it, and as a param site holds it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.tree_util import PyTreeDef

from numpyro_llc.models._modules import pure_parameters
from numpyro_llc.models._types import PyTree


@dataclass(frozen=True)
class Form:
    """The user's pytree, without its parameters; hashable.

    Attributes
    ----------
    whole, pure : treedef
        Of the pytree that the function takes, and of that of the param site: the first less what is
        no parameter, and less the wrapping of a module library.
    shapes : tuple of tuple of int
        Of the parameters.
    others : tuple
        The leaves of `whole`, such as the activation functions of an Equinox module, with
        :class:`Parameter` in the place of each parameter.
    """

    whole: PyTreeDef
    pure: PyTreeDef
    shapes: tuple[tuple[int, ...], ...]
    others: tuple[object, ...]

    def filled(self) -> PyTree:
        """The user's pytree with the values of the param site ``params``, which this makes."""
        initial = jax.tree.unflatten(self.pure, [jnp.zeros(shape) for shape in self.shapes])
        # NumPyro takes a callable, as a module of Equinox is, for what makes the value.
        params = numpyro.param("params", (lambda _: initial) if callable(initial) else initial)
        leaves = iter(jax.tree.leaves(params))
        filled = [next(leaves) if other is Parameter else other for other in self.others]
        return jax.tree.unflatten(self.whole, filled)

    def __reduce__(self) -> tuple[Callable, tuple[object, ...]]:
        """As pytrees: a treedef of Equinox holds marks that are other objects after a pickle."""
        pure = jax.tree.unflatten(self.pure, [Parameter] * len(self.shapes))
        whole = jax.tree.unflatten(self.whole, self.others)
        return _unpickled, (whole, pure, self.shapes, self.others)


class Parameter:
    """The mark of a parameter: a class, which is the same object after a pickle."""


def _unpickled(
    whole: PyTree,
    pure: PyTree,
    shapes: tuple[tuple[int, ...], ...],
    others: tuple[object, ...],
) -> Form:
    return Form(jax.tree.structure(whole), jax.tree.structure(pure), shapes, others)


def form_of(params: PyTree) -> Form:
    """Take the user's pytree apart."""
    own = pure_parameters(params)
    if isinstance(params, Mapping) and {"params"} < set(params):
        beside = sorted(map(str, set(params) - {"params"}))
        raise ValueError(
            f"`params` holds the collections {beside} of a Flax module beside its parameters, and "
            "all that it holds would be sampled. Give {'params': variables['params']}, and let the "
            "function close over the others: lambda p, x: module.apply({**variables, **p}, x)."
        )
    paths, pure = jax.tree_util.tree_flatten_with_path(own)
    if not paths:
        raise ValueError(f"`params` must hold parameters; got {params!r}, which holds none.")
    if isinstance(params, list | tuple) and not any(np.ndim(leaf) for _, leaf in paths):
        raise TypeError(
            f"`params` must not be a {type(params).__name__} of numbers, which in a centre is one "
            "array. Pass an array, or a dict."
        )
    for path, leaf in paths:
        kind = np.asarray(leaf).dtype if not hasattr(leaf, "dtype") else leaf.dtype
        if not jnp.issubdtype(kind, jnp.floating):
            raise TypeError(
                f"`params` must hold floats, which are sampled; got {kind} at "
                f"{jax.tree_util.keystr(path)!r}. Let the function close over counters, switches "
                "and indices."
            )
    leaves, whole = jax.tree.flatten(params)
    places = {id(leaf) for _, leaf in paths}
    others = tuple(Parameter if id(leaf) in places else leaf for leaf in leaves)
    found = [id(leaf) for leaf in leaves if id(leaf) in places]
    if found != [id(leaf) for _, leaf in paths] or not all(map(_is_hashable, others)):
        raise TypeError(
            f"`params` is a {type(params).__name__} that holds arrays beside its parameters. Pass "
            "the parameters alone (variables['params'] of Linen; what nnx.split(module, nnx.Param, "
            "...) or eqx.partition give), and let the function close over the rest."
        )
    return Form(whole, pure, tuple(tuple(np.shape(leaf)) for _, leaf in paths), others)


def _is_hashable(leaf: object) -> bool:
    try:
        hash(leaf)
    except TypeError:
        return False
    return True
