"""Rows of the data in parts, one for each device: places, of which some parts have one too many."""

from dataclasses import dataclass
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.models._types import PyTree


@dataclass(frozen=True)
class ShardsOfRows:
    """`num_rows` rows in `count` parts of as many places, as they lie on devices.

    Where the parts do not divide the rows, the first ones hold a row more, and the others have
    their last row twice, at a place that does not count. Places are numbered through all parts.
    """

    num_rows: int
    count: int

    @property
    def length(self) -> int:
        """Places of a part."""
        return -(-self.num_rows // self.count)

    @property
    def is_padded(self) -> bool:
        """Whether some places do not count."""
        return self.num_rows % self.count > 0

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each part, ``[part]``."""
        longer = np.arange(self.count) < self.num_rows % self.count
        return self.num_rows // self.count + longer.astype(np.int32)

    def padded(self, array: jax.Array, axis: int) -> jax.Array:
        """All places of an array that has the rows along `axis`."""
        return jnp.take(array, self._rows(), axis=axis) if self.is_padded else array

    def rows_alone(self, array: jax.Array, axis: int) -> jax.Array:
        """The rows of an array that has all places along `axis`."""
        return jnp.take(array, self._places(), axis=axis) if self.is_padded else array

    def counts(self, xp: ModuleType, places: PyTree) -> PyTree:
        """Whether places count, by functions of `xp` (NumPy or JAX's)."""
        return places % self.length < xp.asarray(self.lengths)[places // self.length]

    def weights(self, places: jax.Array) -> jax.Array:
        """Rows of each one's part over the mean of all parts.

        Of a batch with as many rows of each part, the mean with these weights is unbiased.
        """
        share = self.lengths * (self.count / self.num_rows)
        return jnp.asarray(share, jnp.result_type(float))[places // self.length]

    def _rows(self) -> np.ndarray:
        """The row at each place."""
        lengths = self.lengths[:, None]
        first = np.cumsum(lengths, axis=0) - lengths
        return (first + np.minimum(np.arange(self.length), lengths - 1)).reshape(-1)

    def _places(self) -> np.ndarray:
        """The place of each row."""
        return np.flatnonzero(np.arange(self.length) < self.lengths[:, None])
