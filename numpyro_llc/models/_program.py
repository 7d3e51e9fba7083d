"""A NumPyro program as pure functions of unconstrained parameters and arrays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.primitives import Messenger

from numpyro_llc.models import _enumeration
from numpyro_llc.models._arguments import StaticArguments
from numpyro_llc.models._discrete import Enumeration
from numpyro_llc.models._types import Losses, Parameters, PyTree, Site, Trace


class FullPlates(Messenger):
    """Give each subsampled plate all its indices, so that a loss is over the whole data.

    The plate `batched`, if it still has all its `num_rows`, gets `rows` instead.
    """

    def __init__(
        self, batched: str | None = None, num_rows: int = 0, rows: jax.Array | None = None
    ) -> None:
        super().__init__()
        self.batched, self.num_rows, self.rows = batched, num_rows, rows

    def process_message(self, msg: Site) -> None:
        if msg["type"] != "plate":
            return
        size, declared = msg["args"]
        msg["subsampled"] = declared is not None and declared != size
        if self.rows is not None and (msg["name"], size) == (self.batched, self.num_rows):
            msg["args"] = (size, len(self.rows))
            msg["value"] = self.rows
        elif msg["value"] is None:
            msg["args"] = (size, None)
            msg["value"] = jnp.arange(size)


@dataclass(frozen=True)
class Batching:
    """How rows of the data are taken out of a model.

    Attributes
    ----------
    num_rows : int
        N, the size of the axis that is batched.
    plate : str or None
        The plate of that axis.
    indexed : bool
        Whether the model indexes its data by the plate's indices; if not, its arguments are sliced.
    axes : tuple of (int or None)
        For each array argument, the axis to slice.
    site_axes : tuple of (str, int)
        The likelihood sites and the axis of their per-datum losses that holds the rows, from the
        right.
    """

    num_rows: int
    plate: str | None
    indexed: bool
    axes: tuple[int | None, ...]
    site_axes: tuple[tuple[str, int], ...] = ()

    def take(self, arrays: Sequence[jax.Array], rows: jax.Array) -> list[jax.Array]:
        """The arguments with only `rows` of those that are sliced."""
        return [
            array if axis is None else jnp.take(array, rows, axis=axis)
            for array, axis in zip(arrays, self.axes, strict=True)
        ]

    def plates(self, rows: jax.Array) -> FullPlates:
        """Puts `rows` (or, of sliced arguments, their places) into the plate."""
        places = rows if self.indexed else jnp.arange(len(rows))
        return FullPlates(self.plate, self.num_rows, places)


def is_real(support: constraints.Constraint) -> bool:
    """Whether `support` is all of R^k, so that ``biject_to`` is the identity."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def _answer(values: Callable, site: Site) -> PyTree:
    """What `values` says of a site. NumPyro writes into `infer`, which sites may share: copy it."""
    if "infer" in site:
        site["infer"] = dict(site["infer"])
    return values(site)


def scan_slice(site: Site, value: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The item of `value` that belongs to this step, if `site` is inside ``scan``."""
    index = site["infer"].get("_scan_current_index")
    return value[index] if index is not None and jnp.ndim(value) > len(shape) else value


def support_of(site: Site) -> constraints.Constraint:
    """Support of a sample site, or constraint of a param site."""
    if site["type"] == "param":
        return site["kwargs"].get("constraint", constraints.real)
    return site["fn"].support


def place(z: Mapping[str, PyTree], site: Site) -> PyTree:
    """The constrained value of `site` at unconstrained parameters `z`; None if it has none."""
    if site["name"] not in z or site["type"] not in ("sample", "param"):
        return None
    value, support = z[site["name"]], support_of(site)
    if site["type"] == "param":
        return value if is_real(support) else biject_to(support)(value)
    shape = site["kwargs"]["sample_shape"] + tuple(site["fn"].shape())
    if is_real(support):
        return scan_slice(site, value, shape)
    transform = biject_to(support)
    return transform(scan_slice(site, value, transform.inverse_shape(shape)))


def site_loss(site: Site) -> jax.Array:
    """``-log p`` of an observed site, one value per datum; a user's ``handlers.scale`` counts.

    In float32 at least, whatever the model computes in: sums over the data need it.
    """
    loss = -site["fn"].log_prob(site["value"])
    loss = loss.astype(jnp.promote_types(loss.dtype, jnp.float32))
    return loss if site["scale"] is None else site["scale"] * loss


@dataclass(frozen=True)
class Program:
    """What is fixed of a model when it is compiled: hashable, no arrays.

    Every method is pure in ``(z, arrays)``: `z` maps each parameter site to its unconstrained
    value, `arrays` are the model's array arguments in order. `parameters` are the latent sample
    sites (`latents`) and the param sites; `likelihood` are the sites that the loss sums.
    `fingerprint` tells programs apart whose `model` is one object but reads other numbers.
    `enumeration` says how discrete latent sites, which are no parameters, are summed out.
    """

    model: Callable
    arguments: StaticArguments
    parameters: tuple[str, ...]
    latents: tuple[str, ...]
    likelihood: tuple[str, ...]
    prior_factors: tuple[str, ...]
    fingerprint: str = ""
    batching: Batching | None = None
    enumeration: Enumeration | None = None

    def require_batching(self) -> Batching:
        """How rows are taken out of the model; raises where they cannot be."""
        if self.batching is None:
            raise ValueError("Rows cannot be taken out of the model yet: see `with_batches`.")
        return self.batching

    def trace(
        self,
        arrays: Sequence[jax.Array],
        values: Callable,
        seed: int | jax.Array = 0,
        plates: FullPlates | None = None,
        first_dim: int | None = None,
    ) -> Trace:
        """Run the model on its full data, with ``values(site)`` at each site that it answers.

        With `first_dim`, discrete latent sites have all their states at once, on axes from there.
        """
        args, kwargs = self.arguments.join(arrays)
        seeded = handlers.seed(self.model, rng_seed=seed)
        model = handlers.substitute(seeded, substitute_fn=partial(_answer, values))
        record = handlers.trace()
        if first_dim is not None:
            model = _enumeration.enumerating(model, first_dim)
            record = _enumeration.recorded(first_dim)
        try:
            with handlers.block(), plates or FullPlates(), record as trace:
                model(*args, **kwargs)
        except (
            jax.errors.ConcretizationTypeError,
            jax.errors.TracerArrayConversionError,
            jax.errors.TracerIntegerConversionError,
            jax.errors.NonConcreteBooleanIndexError,
        ) as error:
            raise ValueError(
                "The model reads the values of an array argument as Python or NumPy numbers "
                "(int(...), numpy.unique, a shape, an `if`, a boolean index), so it cannot be "
                "compiled with its data as runtime arguments. Compute that number outside the "
                "model and pass it as a Python int, or use jax.numpy."
            ) from error
        return trace

    def losses(
        self, z: Parameters, arrays: Sequence[jax.Array], seed: int | jax.Array = 0
    ) -> Losses:
        """Per-datum losses ``-log p(x_i | z)`` in nats, an array for each observed site.

        Observed sites that share discrete latent sites have one array for all of them.
        """
        values = partial(place, z)
        trace = self.trace(arrays, values, seed) if self.plain(self.likelihood) else {}
        losses = {name: site_loss(trace[name]) for name in self.plain(self.likelihood)}
        return losses | self.marginal_losses(arrays, values, self.likelihood, seed)

    def plain(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the sites whose densities depend on no discrete latent site."""
        covered = frozenset() if self.enumeration is None else self.enumeration.covered
        return tuple(name for name in names if name not in covered)

    def marginal_losses(
        self,
        arrays: Sequence[jax.Array],
        values: Callable,
        names: Iterable[str],
        seed: int | jax.Array = 0,
        plates: FullPlates | None = None,
    ) -> Losses:
        """Losses of those of the sites that depend on discrete ones, which are summed out."""
        if self.enumeration is None or self.enumeration.covered.isdisjoint(names):
            return {}
        trace = self.trace(arrays, values, seed, plates, self.enumeration.first_dim)
        return self.enumeration.losses(trace, names)

    def marginal_counts(self, trace: Trace) -> dict[str, jax.Array]:
        """Data of each marginal loss, from a plain trace."""
        return {} if self.enumeration is None else self.enumeration.counts(trace)

    def batch_losses(self, z: Parameters, arrays: Sequence[jax.Array], rows: jax.Array) -> Losses:
        """Per-datum losses of the rows `rows` alone, at a cost that does not grow with the data."""
        batching = self.require_batching()
        values, taken, plates = (
            partial(place, z),
            batching.take(arrays, rows),
            batching.plates(rows),
        )
        losses = self.marginal_losses(taken, values, self.likelihood, plates=plates)
        if not (names := self.plain(self.likelihood)):
            return losses
        trace = self.trace(taken, values, plates=plates)
        share = len(rows) / batching.num_rows  # undoes NumPyro's scale of a subsampled plate
        for name in names:
            own = {frame.name for frame in trace[name]["cond_indep_stack"]}
            plate = trace[batching.plate] if batching.plate and batching.plate in own else None
            subsampled = plate is not None and plate["args"] == (batching.num_rows, len(rows))
            losses[name] = site_loss(trace[name]) * (share if subsampled else 1.0)
        return losses

    def row_losses(self, z: Parameters, arrays: Sequence[jax.Array], rows: jax.Array) -> jax.Array:
        """The loss of each of `rows` in nats, summed over sites and inner axes, ``[len(rows)]``."""
        losses = self.batch_losses(z, arrays, rows)
        by_row = [
            jnp.sum(jnp.moveaxis(losses[name], axis, 0).reshape(len(rows), -1), axis=1)
            for name, axis in self.require_batching().site_axes
        ]
        return sum(by_row[1:], by_row[0])

    def with_prior(self) -> "Program":
        """The same program with the prior in its loss (constrained density, no Jacobian): MAP."""
        return replace(self, likelihood=(*self.likelihood, *self.latents, *self.prior_factors))

    def prior_potential(self, z: Parameters, arrays: Sequence[jax.Array]) -> jax.Array:
        """``-log p(w(z)) |dw/dz|`` of the latent sites and the prior factors, a scalar."""
        values, names = partial(place, z), (*self.latents, *self.prior_factors)
        trace = self.trace(arrays, values)
        joint = self.marginal_losses(arrays, values, names).values()
        total = sum(map(jnp.sum, joint), jnp.zeros(()))
        for name in names:
            if name in self.plain(names):
                total += jnp.sum(site_loss(trace[name]))
            if name in self.latents and not is_real(trace[name]["fn"].support):
                transform = biject_to(trace[name]["fn"].support)
                log_det = transform.log_abs_det_jacobian(z[name], trace[name]["value"])
                total -= jnp.sum(log_det)
        return total

    def constrain(
        self, z: Parameters, arrays: Sequence[jax.Array], names: Sequence[str]
    ) -> Parameters:
        """Constrained values of the named sites (parameters or deterministic)."""
        trace = self.trace(arrays, partial(place, z))
        return {name: trace[name]["value"] for name in names}


@partial(jax.jit, static_argnums=(0, 1))
def constrain(
    program: Program, names: tuple[str, ...], z: Parameters, arrays: Sequence[jax.Array]
) -> Parameters:
    """:meth:`Program.constrain`, compiled."""
    return program.constrain(z, arrays, names)
