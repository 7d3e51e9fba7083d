"""A NumPyro program as pure functions of unconstrained parameters and arrays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from numpyro_llc.models import _enumeration
from numpyro_llc.models._arguments import StaticArguments
from numpyro_llc.models._convolutions import by_products
from numpyro_llc.models._discrete import Enumeration
from numpyro_llc.models._plates import Batching, FullPlates, Rows, batch_given, batch_of
from numpyro_llc.models._precision import unrounded
from numpyro_llc.models._sources import check_in_memory, stand_ins
from numpyro_llc.models._stream import Weighted
from numpyro_llc.models._types import Losses, Parameters, PyTree, Site, Trace

READS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
"""What JAX raises where Python or NumPy reads numbers that are not known when it compiles."""


class ReadsValuesError(ValueError):
    """A model reads numbers that are not known when it is compiled."""


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


@unrounded
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
    `fingerprint` tells programs apart whose `model` is one object but reads other numbers;
    `has_forward_mode` is False where a function of the model has a reverse rule of its own;
    `has_convolutions` says whether it has any.
    `enumeration` says how discrete latent sites, which are no parameters, are summed out.
    `computes` tells what the losses are in the same words in every process, where the fingerprint
    may depend on the order of a set.
    """

    model: Callable
    arguments: StaticArguments
    parameters: tuple[str, ...]
    latents: tuple[str, ...]
    likelihood: tuple[str, ...]
    prior_factors: tuple[str, ...]
    fingerprint: str = ""
    batching: Batching | None = None
    has_forward_mode: bool = True
    has_convolutions: bool = False
    enumeration: Enumeration | None = None
    computes: str = field(default="", compare=False)

    def require_batching(self) -> Batching:
        """How rows are taken out of the model; raises where they cannot be."""
        if self.batching is None:
            raise ValueError("Rows cannot be taken out of the model yet: see `with_batches`.")
        return self.batching

    def knowing(self) -> AbstractContextManager[None]:
        """Where arrays are structure: JAX computes of known numbers at once, so they stay known."""
        return jax.ensure_compile_time_eval() if self.arguments.has_held else nullcontext()

    @unrounded
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
        check_in_memory(arrays, "What is computed takes")
        if plates is None and self.batching is not None:
            arrays = self.batching.rows_alone(arrays)
        seeded = handlers.seed(self.model, rng_seed=seed)
        model = handlers.substitute(seeded, substitute_fn=partial(_answer, values))
        record = handlers.trace()
        if first_dim is not None:
            model = _enumeration.enumerating(model, first_dim)
            record = _enumeration.recorded(first_dim)
        plates = plates or FullPlates()
        try:
            with self.knowing(), handlers.block(), plates, record as trace:
                args, kwargs = self.arguments.join(arrays)
                model(*args, **kwargs)
        except READS_VALUES as error:
            raise ReadsValuesError(
                "The model reads, as Python or NumPy numbers (int(...), numpy.unique, a shape, an "
                "`if`, a boolean index), values that depend on its parameters or on the rows of a "
                "batch, so it cannot be compiled. Use jax.numpy (jnp.where, jax.lax.cond)."
            ) from error
        except (TypeError, ValueError) as error:
            if plates.filled and "broadcast" in str(error):
                raise batch_given(plates.filled, error, isinstance(self.model, Weighted)) from error
            raise
        except AssertionError as error:  # NumPyro's, of a plate of size zero
            named = self.arguments.names(self.model, arrays)
            if empty := [name for name, array in named.items() if array.size == 0]:
                raise ValueError(
                    f"The arguments {empty} hold no data. Pass at least one row: {error}"
                ) from error
            raise
        return trace

    @by_products
    def losses(
        self, z: Parameters, arrays: Sequence[jax.Array], seed: int | jax.Array = 0
    ) -> Losses:
        """Per-datum losses ``-log p(x_i | z)`` in nats, an array for each observed site.

        Observed sites that share discrete latent sites have one array for all of them.
        """
        sites = self.observed_sites(z, arrays, seed=seed)
        marginal = self.marginal_losses(arrays, partial(place, z), self.likelihood, seed)
        return {name: site_loss(site) for name, site in sites.items()} | marginal

    def plain(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the sites whose densities depend on no discrete latent site."""
        covered = frozenset() if self.enumeration is None else self.enumeration.covered
        return tuple(name for name in names if name not in covered)

    @unrounded
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

    def marginal_weights(self, trace: Trace, losses: Losses) -> Losses:
        """How many data each marginal loss counts as, from a plain trace."""
        return {} if self.enumeration is None else self.enumeration.weights(trace, losses)

    @by_products
    def batch_losses(self, z: Parameters, arrays: Sequence[jax.Array], rows: Rows) -> Losses:
        """Per-datum losses of the rows `rows` alone, at a cost that does not grow with the data."""
        batching, values = self.require_batching(), partial(place, z)
        rows = batch_of(arrays, rows)
        taken, plates = batching.take(arrays, rows), batching.plates(rows)
        marginal = self.marginal_losses(taken, values, self.likelihood, plates=plates)
        sites = self.observed_sites(z, arrays, rows)
        return marginal | {name: site_loss(site) for name, site in sites.items()}

    def observed_sites(
        self,
        z: Parameters,
        arrays: Sequence[jax.Array],
        rows: Rows | None = None,
        seed: int | jax.Array = 0,
    ) -> Trace:
        """The likelihood sites that depend on no discrete site, of all rows of the data or some."""
        names, values = self.plain(self.likelihood), partial(place, z)
        if not names:
            return {}
        if rows is None:
            trace = self.trace(arrays, values, seed)
            return {name: trace[name] for name in names}
        batching = self.require_batching()
        trace = self.trace(batching.take(arrays, rows), values, seed, batching.plates(rows))
        return {name: batching.unscaled(trace, name, len(rows)) for name in names}

    def row_losses(self, z: Parameters, arrays: Sequence[jax.Array], rows: Rows) -> jax.Array:
        """The loss of each of `rows` in nats, summed over sites and inner axes, ``[len(rows)]``."""
        return self.by_row(self.batch_losses(z, arrays, rows), len(rows))

    def by_row(self, losses: Losses, count: int) -> jax.Array:
        """Losses of `count` rows, of all sites or some, summed over sites and inner axes."""
        by_row = [
            jnp.sum(jnp.moveaxis(losses[name], axis, 0).reshape(count, -1), axis=1)
            for name, axis in self.require_batching().site_axes
            if name in losses
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

    def constrained(self, z: Parameters, arrays: Sequence[jax.Array]) -> tuple[str, ...]:
        """Names of the parameters whose support is not all of R^k; nothing is computed."""
        found: list[str] = []

        def look(z: Parameters, arrays: Sequence[jax.Array]) -> None:
            trace = self.trace(arrays, partial(place, z))
            found.extend(k for k in self.parameters if not is_real(support_of(trace[k])))

        jax.eval_shape(look, z, arrays)
        return tuple(found)

    def constrain(
        self, z: Parameters, arrays: Sequence[jax.Array], names: Sequence[str]
    ) -> Parameters:
        """Constrained values of the named sites (parameters or deterministic)."""
        trace = self.trace(stand_ins(arrays), partial(place, z))
        return {name: trace[name]["value"] for name in names}


@partial(jax.jit, static_argnums=(0, 1))
def constrain(
    program: Program, names: tuple[str, ...], z: Parameters, arrays: Sequence[jax.Array]
) -> Parameters:
    """:meth:`Program.constrain`, compiled."""
    return program.constrain(z, arrays, names)
