"""Plates: all their rows, or a batch of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger

from numpyro_llc.models._shards_of_rows import ShardsOfRows
from numpyro_llc.models._sources import Source, fetched, sources_of
from numpyro_llc.models._types import PyTree, Site, Trace

SLICE_ROWS, SLICE_BYTES = 8192, 2**26
"""Most rows of the data, and most bytes of them, that are evaluated at once."""


class FullPlates(Messenger):
    """Give each subsampled plate all its indices, so that a loss is over the whole data.

    The plate `batched`, if it still has all its `num_rows`, gets `rows` instead.
    """

    def __init__(
        self, batched: str | None = None, num_rows: int = 0, rows: jax.Array | None = None
    ) -> None:
        super().__init__()
        self.batched, self.num_rows, self.rows = batched, num_rows, rows
        self.filled: dict[str, int] = {}

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
            if msg["subsampled"]:
                self.filled[msg["name"]] = size


@partial(jax.tree_util.register_dataclass, data_fields=["numbers", "taken"], meta_fields=[])
@dataclass(frozen=True)
class Batch:
    """Numbers of rows, and of each of the model's arrays these rows, if they were read already."""

    numbers: jax.Array
    taken: tuple[jax.Array | None, ...]

    @classmethod
    def of(cls, arrays: Sequence[PyTree], numbers: jax.Array, read: Sequence[jax.Array]) -> "Batch":
        """A batch of what was `read` of each source among `arrays`."""
        found = iter(read)
        return cls(numbers, tuple(next(found) if isinstance(x, Source) else None for x in arrays))

    def __len__(self) -> int:
        return int(self.numbers.shape[0])


Rows = jax.Array | Batch
"""Numbers of rows, with or without the rows of sources."""


def numbers_of(rows: Rows) -> jax.Array:
    """The numbers of rows."""
    return rows.numbers if isinstance(rows, Batch) else rows


def batch_of(arrays: Sequence[PyTree], rows: Rows, upcoming: jax.Array | None = None) -> Rows:
    """Rows with those of sources, read here if they were not yet; `upcoming` are read ahead."""
    sources = sources_of(arrays)
    if isinstance(rows, Batch) or not sources:
        return rows
    return Batch.of(arrays, rows, fetched(sources, rows, upcoming))


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
    shards : int
        Parts that the rows are cut into, as they lie on devices. Where these are more than one,
        `rows` hold as many numbers of each part, those of the first part first, and the numbers are
        those of places: see :class:`ShardsOfRows`.
    stream_rows : int
        Rows of the data that a stream gives batches of, where the `num_rows` are those that losses
        are recorded on; 0 without a stream.
    """

    num_rows: int
    plate: str | None
    indexed: bool
    axes: tuple[int | None, ...]
    site_axes: tuple[tuple[str, int], ...] = ()
    shards: int = 1
    stream_rows: int = 0

    @property
    def places(self) -> ShardsOfRows:
        """Where the rows lie on devices."""
        return ShardsOfRows(self.num_rows, self.shards)

    def rows_alone(self, arrays: Sequence[PyTree]) -> list[PyTree]:
        """Arrays without the places that do not count."""
        return [
            array if axis is None else self.places.rows_alone(array, axis)
            for array, axis in zip(arrays, self.axes, strict=True)
        ]

    def take(self, arrays: Sequence[PyTree], rows: Rows) -> list[jax.Array]:
        """The arguments with only `rows` of those that are sliced."""
        batch = batch_of(arrays, rows)
        numbers = numbers_of(batch)
        read = batch.taken if isinstance(batch, Batch) else (None,) * len(arrays)

        def one(array: PyTree, axis: int | None, found: jax.Array | None) -> jax.Array:
            if axis is None:
                return array
            return self.taken(array, numbers, axis) if found is None else found

        return list(map(one, arrays, self.axes, read))

    def row_bytes(self, arrays: Sequence[PyTree]) -> int:
        """Bytes of a row of the arguments; where these are indexed, of those as long as the data.

        Of the same data it is the same, in memory or elsewhere.
        """
        axes = [0 if x.shape[:1] == (self.num_rows,) else None for x in arrays]
        axes = axes if self.indexed else list(self.axes)
        sizes = [
            array.dtype.itemsize * array.size // self.num_rows
            for array, axis in zip(arrays, axes, strict=True)
            if axis is not None
        ]
        return sum(sizes)

    def slice_rows(self, arrays: Sequence[PyTree]) -> int:
        """Most rows that are evaluated at once."""
        return int(np.clip(SLICE_BYTES // max(1, self.row_bytes(arrays)), 1, SLICE_ROWS))

    def taken(self, array: jax.Array, rows: jax.Array, axis: int) -> jax.Array:
        """Some rows of an array, of each part those in it: no row changes its device."""
        if self.shards == 1:
            return jnp.take(array, rows, axis=axis)
        array = jnp.moveaxis(array, axis, 0)
        parts = array.reshape(self.shards, -1, *array.shape[1:])
        places = rows.reshape(self.shards, -1) % parts.shape[1]
        taken = jax.vmap(lambda part, own: jnp.take(part, own, axis=0))(parts, places)
        return jnp.moveaxis(jax.lax.collapse(taken, 0, 2), 0, axis)

    def unscaled(self, trace: Trace, name: str, count: int) -> Site:
        """A site without the scale that NumPyro gives it in a subsampled plate."""
        site = trace[name]
        own = {frame.name for frame in site["cond_indep_stack"]}
        plate = trace[self.plate] if self.plate and self.plate in own else None
        is_subsampled = plate is not None and plate["args"] == (self.num_rows, count)
        if not is_subsampled or site["scale"] is None:
            return site
        return {**site, "scale": site["scale"] * (count / self.num_rows)}

    def plates(self, rows: Rows) -> FullPlates:
        """Puts `rows` (or, of sliced arguments, their places) into the plate."""
        places = numbers_of(rows) if self.indexed else jnp.arange(len(rows))
        return FullPlates(self.plate, self.num_rows, places)


def batch_given(plates: Mapping[str, int], error: Exception, is_stream: bool) -> ValueError:
    """The error for data that do not fill a subsampled plate, which gets all its indices."""
    sizes = ", ".join(f"{name!r} (size {size})" for name, size in plates.items())
    remedy = (
        "A stream counts the rows of all the data itself, by its `num_data`: give the plate the "
        "size of its batch, numpyro.plate(name, len(x)), without subsample_size."
        if is_stream
        else "λ̂ is of the full data: pass all rows, and take those of a batch inside the model, "
        "by the plate's indices or numpyro.subsample."
    )
    return ValueError(
        f"The data in a plate with subsample_size do not fill it: {sizes}. {remedy} The error is: "
        f"{error}"
    )
