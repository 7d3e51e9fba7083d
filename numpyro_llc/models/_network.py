"""``network_model``: a NumPyro model from an apply function."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.tree_util import PyTreeDef
from numpyro import distributions as dist

from numpyro_llc._checks import check_positive
from numpyro_llc.models._modules import pure_parameters
from numpyro_llc.models._types import PyTree

LIKELIHOODS: dict[str, Callable[..., dist.Distribution]] = {
    "normal": lambda outputs, scale: dist.Normal(outputs, scale),
    "categorical": lambda outputs, scale: dist.Categorical(logits=outputs),
    "bernoulli": lambda outputs, scale: dist.Bernoulli(logits=outputs),
}


@dataclass(frozen=True)
class Form:
    """The user's pytree, without its parameters; hashable.

    Attributes
    ----------
    whole, pure : treedef
        Of the pytree that `apply` takes, and of that of the param site: the first less what is no
        parameter, and less the wrapping of a module library.
    shapes : tuple of tuple of int
        Of the parameters.
    others : tuple
        The leaves of `whole`, such as the activation functions of an Equinox module, with
        ``PARAMETER`` in the place of each parameter.
    """

    whole: PyTreeDef
    pure: PyTreeDef
    shapes: tuple[tuple[int, ...], ...]
    others: tuple[object, ...]

    def initial(self) -> PyTree:
        """Parameters of zeros, as the site holds them."""
        return jax.tree.unflatten(self.pure, [jnp.zeros(shape) for shape in self.shapes])

    def filled(self, params: PyTree) -> PyTree:
        """The user's pytree with these parameters."""
        leaves = iter(jax.tree.leaves(params))
        filled = [next(leaves) if other is PARAMETER else other for other in self.others]
        return jax.tree.unflatten(self.whole, filled)


PARAMETER = "a parameter"


@dataclass(frozen=True)
class NetworkModel:
    """What :func:`network_model` returns: a NumPyro model of ``(x, y)``.

    Two of the same function, structure and likelihood are equal, so that they share compiled code.
    """

    apply: Callable[[PyTree, PyTree], jax.Array]
    form: Form
    likelihood: str | Callable[[jax.Array], dist.Distribution]
    scale: float

    def __call__(self, x: PyTree, y: jax.Array) -> None:
        """Observe `y` [n, ...], given inputs `x`, whose arrays have n rows."""
        self._check_data(y)
        initial = self.form.initial()
        # NumPyro takes a callable, as a module of Equinox is, for what makes the value.
        params = numpyro.param("params", (lambda _: initial) if callable(initial) else initial)
        with numpyro.plate("data", len(y)):
            outputs = self.apply(self.form.filled(params), x)
            if not isinstance(outputs, jax.Array):
                raise TypeError(
                    f"`apply` must return one array of outputs; got {type(outputs).__name__}."
                )
            noise = self._noise(outputs)
            noise = noise.to_event(len(noise.batch_shape) - 1)
            if tuple(noise.shape()) != jnp.shape(y):
                raise ValueError(
                    f"`apply` gives outputs of shape {outputs.shape}, which makes data of shape "
                    f"{noise.shape()}; `y` has shape {jnp.shape(y)}. Reshape one."
                )
            numpyro.sample("y", noise, obs=y)

    def _check_data(self, y: object) -> None:
        if not isinstance(y, jax.Array | np.ndarray) or y.ndim == 0:
            raise TypeError(
                f"`y` must be an array with a row for each datum; got {type(y).__name__}. Pass the "
                "data in `model_args` as (x, y)."
            )
        if self.likelihood == "categorical" and not jnp.issubdtype(y.dtype, jnp.integer):
            raise TypeError(
                "`y` must hold the numbers of classes as integers under 'categorical'; got "
                f"{y.dtype}. Use y.astype(int)."
            )

    def _noise(self, outputs: jax.Array) -> dist.Distribution:
        if isinstance(self.likelihood, str):
            return LIKELIHOODS[self.likelihood](outputs, self.scale)
        noise = self.likelihood(outputs)
        if not isinstance(noise, dist.Distribution):
            raise TypeError(
                "`likelihood` must return a NumPyro distribution of the outputs; got "
                f"{type(noise).__name__}."
            )
        return noise


def network_model(
    apply: Callable[[PyTree, PyTree], jax.Array],
    params: PyTree,
    likelihood: str | Callable[[jax.Array], dist.Distribution] = "normal",
    *,
    scale: float = 1.0,
) -> NetworkModel:
    """Make a NumPyro model of ``(x, y)`` from a network, with all parameters in one site.

    Parameters
    ----------
    apply : callable
        ``apply(params, x) -> outputs [n, ...]``, deterministic, each row of the outputs a function
        of that row of `x` alone. One function object for all calls: it is a key of compiled code.
    params : pytree
        Parameters as `apply` takes them: of floats; the variables of a Linen module, if they are
        parameters alone; an ``nnx.State`` of parameters; an Equinox module, whose other leaves
        stay as they are. Only structure and shapes are used. The centre is
        ``center={"params": params}``, of this or other parameters of the same structure.
    likelihood : {"normal", "categorical", "bernoulli"} or callable
        Of `y` given the outputs: Normal of mean outputs and standard deviation `scale`;
        Categorical of logits ``[n, classes]``; Bernoulli of logits; or a function from outputs to a
        NumPyro distribution of batch shape ``[n, ...]``, whose axes after the first are made one
        event.
    scale : float
        Standard deviation of "normal".

    Returns
    -------
    NetworkModel
        A model with the param site ``params``, the plate ``data`` and the observed site ``y``.

    Raises
    ------
    ValueError, TypeError
        For an unknown likelihood, for `params` that are no floats; and when the model is read, for
        outputs that do not fit `y`, or that depend on other rows than their own (batch norm).
    """
    if isinstance(likelihood, str) and likelihood not in LIKELIHOODS:
        raise ValueError(f"`likelihood` must be one of {list(LIKELIHOODS)}; got {likelihood!r}.")
    if not callable(apply) or not (isinstance(likelihood, str) or callable(likelihood)):
        raise TypeError(
            "`apply` must be a function of (params, x), and `likelihood` a name or a function of "
            f"the outputs; got {type(apply).__name__} and {type(likelihood).__name__}."
        )
    check_positive("scale", scale, meaning="It is the standard deviation of the noise.")
    return NetworkModel(apply, _form(params), likelihood, float(scale))


def _form(params: PyTree) -> Form:
    """Take the user's pytree apart."""
    own = pure_parameters(params)
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
                f"{jax.tree_util.keystr(path)!r}. Let `apply` close over counters, switches and "
                "indices."
            )
    leaves, whole = jax.tree.flatten(params)
    places = {id(leaf) for _, leaf in paths}
    others = tuple(PARAMETER if id(leaf) in places else leaf for leaf in leaves)
    found = [id(leaf) for leaf in leaves if id(leaf) in places]
    if found != [id(leaf) for _, leaf in paths] or not all(map(_is_hashable, others)):
        raise TypeError(
            f"`params` is a {type(params).__name__} that holds arrays beside its parameters. Pass "
            "the parameters alone (variables['params'] of Linen; what nnx.split(module, nnx.Param, "
            "...) or eqx.partition give), and let `apply` close over the rest."
        )
    return Form(whole, pure, tuple(tuple(np.shape(leaf)) for _, leaf in paths), others)


def _is_hashable(leaf: object) -> bool:
    try:
        hash(leaf)
    except TypeError:
        return False
    return True
