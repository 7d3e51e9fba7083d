"""``LocalTarget``: the tempered, localized density that every sampler reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp

from numpyro_llc.local._parts import Fixed
from numpyro_llc.local._slices import cut_rows, sum_over_parts, sum_over_slices
from numpyro_llc.models import (
    SLICE_ROWS,
    Arrays,
    Losses,
    Parameters,
    Program,
    PyTree,
    Rows,
    Source,
    Truth,
    batch_of,
    loss_function,
    numbers_of,
    row_loss_function,
    sources_of,
)

_FIELDS = [
    "arrays",
    "center",
    "center_losses",
    "inverse_temperature",
    "localization",
    "fixed",
    "truth",
    "stream",
]


def _squared_distance(
    z: Parameters, center: Parameters, weights: Mapping[str, float | jax.Array]
) -> jax.Array:
    terms = [
        weights[name] * jnp.sum(jnp.square(leaf - anchor))
        for name in center
        for leaf, anchor in zip(
            jax.tree.leaves(z[name]), jax.tree.leaves(center[name]), strict=True
        )
    ]
    return sum(terms, jnp.zeros(()))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=_FIELDS,
    meta_fields=["program"],
)
@dataclass(frozen=True)
class LocalTarget:
    r"""The density ``p(z) ∝ exp(-β Σ_i [ℓ_i(z) - ℓ_i(z*)] - γ/2 |z - z*|²)``.

    A pytree: all but `program` are runtime arguments of whatever is compiled with it, so another
    centre, data set of the same shape, β or γ compiles nothing.

    Attributes
    ----------
    program : Program
        The model's compile-time part.
    arrays : tuple of jax.Array
        The model's array arguments.
    center : dict
        Unconstrained ``z*``, of the parameters that are sampled.
    center_losses : dict of str to jax.Array
        ``ℓ_i(z*)`` in nats, per datum, for each likelihood site.
    inverse_temperature : jax.Array
        β, a scalar.
    localization : dict of str to jax.Array
        γ of each site, scalars.
    fixed : Fixed or None
        The parameters that stay at ``z*``, if not all are sampled.
    truth : Truth or None
        The model's distributions at ``z*``, if the losses ``ℓ_i`` are divergences from these and
        not those of the data.
    stream : tuple of Source
        What batches are drawn from in the place of `arrays`; empty without a stream.
    """

    program: Program
    arrays: Arrays
    center: Parameters
    center_losses: Losses
    inverse_temperature: jax.Array
    localization: dict[str, jax.Array]
    fixed: Fixed | None = None
    truth: Truth | None = None
    stream: tuple[Source, ...] = ()

    @property
    def dimension(self) -> int:
        """How many parameters are sampled."""
        return sum(jnp.size(leaf) for leaf in jax.tree.leaves(self.center))

    def whole(self, z: Parameters) -> Parameters:
        """All unconstrained parameters, of those that are sampled."""
        return z if self.fixed is None else self.fixed.whole(z)

    def losses(self, z: Parameters) -> Losses:
        """Per-datum losses in nats, an array for each observed site."""
        return self.loss_function()(z)

    @property
    def has_draws(self) -> bool:
        """Whether losses are means over draws from the truth."""
        return self.truth is not None and bool(self.truth.draws)

    def loss_function(self, *, by_part: bool = False) -> Callable[[Parameters], Losses]:
        """From z to the losses, whose truth is taken once for all z.

        With `by_part` ``[DRAW_PARTS, ...]``, from a part of the draws each.
        """
        losses = loss_function(self.program, self.arrays, self.truth, by_part=by_part)
        return lambda z: losses(self.whole(z))

    @property
    def is_elsewhere(self) -> bool:
        """Whether rows of the data are not in memory, but read as they are needed."""
        return bool(sources_of(self.arrays))

    @property
    def is_padded(self) -> bool:
        """Whether devices hold places of rows that do not count, as they do not divide the rows."""
        return self.program.batching is not None and self.program.batching.places.is_padded

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the data; 0 if the program has no batching."""
        return 0 if self.program.batching is None else self.program.batching.row_bytes(self.arrays)

    @property
    def slice_rows(self) -> int:
        """Most rows of the data that are evaluated at once."""
        batching = self.program.batching
        return SLICE_ROWS if batching is None else batching.slice_rows(self.arrays)

    def fetched(self, rows: Rows, upcoming: jax.Array | None = None) -> Rows:
        """`rows`, read if they lie elsewhere; `upcoming` ones are then read ahead."""
        return batch_of(self.arrays, rows, upcoming)

    def row_losses(self, z: Parameters, rows: Rows) -> jax.Array:
        """The loss of each of `rows` in nats, ``[len(rows)]``."""
        return self.row_loss_function(rows)(z)

    def row_loss_function(
        self, rows: Rows, *, by_part: bool = False
    ) -> Callable[[Parameters], jax.Array]:
        """From z to the losses of `rows`; as :meth:`loss_function`."""
        losses = row_loss_function(self.program, self.arrays, self.truth, rows, by_part=by_part)
        return lambda z: losses(self.whole(z))

    def excess_loss(self, z: Parameters) -> jax.Array:
        """``nL(z) - nL(z*)`` in nats, a scalar: per-datum differences first, then their sum."""
        if self.is_elsewhere or self.is_padded:
            return self.over_slices(lambda rows, weights: self._excess(z, rows) @ weights)
        losses = self.losses(z)
        terms = [jnp.sum(x - self.center_losses.get(name, 0.0)) for name, x in losses.items()]
        return sum(terms, jnp.zeros(()))

    def over_slices(self, terms: Callable[[Rows, jax.Array], PyTree]) -> PyTree:
        """The sum of ``terms(rows, weights)`` over slices of all rows."""
        if not self.is_elsewhere:
            return sum_over_parts(terms, *self.row_slices(jnp))
        return sum_over_slices(self.num_rows, self.slice_rows, self.fetched, terms)

    def row_slices(self, xp: ModuleType, rows: PyTree = None) -> tuple[PyTree, PyTree]:
        """`rows` (None: all) in slices, and their weights: arrays of `xp`, ``[slices, rows]``."""
        places = self.program.require_batching().places
        rows = xp.arange(places.count * places.length) if rows is None else rows
        slices, weights = cut_rows(xp, rows, places.count, self.slice_rows)
        return slices, weights * places.counts(xp, slices) if places.is_padded else weights

    def _excess(self, z: Parameters, rows: Rows) -> jax.Array:
        """``ℓ_i(z) - ℓ_i(z*)`` of some rows."""
        losses = self.row_loss_function(rows)
        return losses(z) - losses(self.center)

    def displacement(self, z: Parameters) -> dict[str, jax.Array]:
        """``distance`` = |z - z*| over all sites, and ``penalty`` = ½ Σ_s γ_s |z_s - z*_s|²."""
        ones = dict.fromkeys(self.center, 1.0)
        distance = jnp.sqrt(_squared_distance(z, self.center, ones))
        return {"distance": distance, "penalty": self.penalty(z)}

    def penalty(self, z: Parameters) -> jax.Array:
        """``γ/2 |z - z*|²``, a scalar."""
        return 0.5 * _squared_distance(z, self.center, self.localization)

    def penalty_gradient(self, z: Parameters) -> Parameters:
        """``γ (z - z*)``.

        Written out: the derivatives that JAX takes of a sum over many leaves take long to compile.
        """
        return {
            name: jax.tree.map(
                lambda leaf, anchor, gamma=self.localization[name]: gamma * (leaf - anchor),
                z[name],
                tree,
            )
            for name, tree in self.center.items()
        }

    def potential(self, z: Parameters) -> jax.Array:
        """``β [nL(z) - nL(z*)] + γ/2 |z - z*|²``, a scalar; zero at the centre."""
        return self.inverse_temperature * self.excess_loss(z) + self.penalty(z)

    @property
    def num_rows(self) -> int:
        """Rows of the data that batches are drawn from; 0 if the program has no batching."""
        return 0 if self.program.batching is None else self.program.batching.num_rows

    @property
    def num_shards(self) -> int:
        """Parts that the rows are cut into: of each a batch holds as many."""
        return 1 if self.program.batching is None else self.program.batching.shards

    def row_terms(self, z: Parameters, rows: Rows) -> jax.Array:
        """``β N ℓ_i(z)`` of `rows`, ``[len(rows)]``; its expectation over random rows is β nL."""
        terms = self.inverse_temperature * self.num_rows * self.row_losses(z, rows)
        if not self.is_padded:
            return terms
        return terms * self.program.require_batching().places.weights(numbers_of(rows))

    def tempered_loss(self, z: Parameters, rows: Rows | None) -> jax.Array:
        """``β nL(z)`` up to a constant, or from `rows` an unbiased estimate of it, a scalar."""
        if rows is None:
            return self.inverse_temperature * self.excess_loss(z)
        return jnp.mean(self.row_terms(z, rows))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=_FIELDS,
    meta_fields=["program"],
)
@dataclass(frozen=True)
class PosteriorTarget(LocalTarget):
    """The posterior of a model as it is: its prior (and Jacobian) in place of the Gaussian."""

    def penalty(self, z: Parameters) -> jax.Array:
        """``-log p(w(z)) - log |dw/dz|``, a scalar."""
        return self.program.prior_potential(self.whole(z), self.arrays)

    def penalty_gradient(self, z: Parameters) -> Parameters:
        return jax.grad(self.penalty)(z)


@partial(jax.jit, static_argnums=0)
def _losses(program: Program, z: Parameters, arrays: Arrays) -> Losses:
    return program.losses(z, arrays)


def make_target(
    program: Program,
    arrays: Arrays,
    center: Parameters,
    *,
    inverse_temperature: float | jax.Array,
    localization: Mapping[str, float | jax.Array],
    center_losses: Losses | None = None,
    fixed: Fixed | None = None,
    truth: Truth | None = None,
    stream: tuple[Source, ...] = (),
) -> LocalTarget:
    """Put the target together; `center_losses` are evaluated unless they are known.

    Against a `truth` they are 0.
    """
    if truth is not None:
        center_losses = {}
    elif center_losses is None:
        center_losses = _losses(program, center, arrays)
    scalar = partial(jnp.asarray, dtype=jnp.result_type(float))
    return LocalTarget(
        program=program,
        arrays=arrays,
        center=center,
        center_losses=center_losses,
        inverse_temperature=scalar(inverse_temperature),
        localization={name: scalar(localization[name]) for name in center},
        fixed=fixed,
        truth=truth,
        stream=stream,
    )
