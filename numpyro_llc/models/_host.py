"""Arrays on the host, wherever their parts lie."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


def on_host(leaf: object) -> np.ndarray:
    """A whole array as NumPy's, of random keys their words.

    What lies with several processes is gathered: each of them must ask for it, at the same place of
    the program.
    """
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
