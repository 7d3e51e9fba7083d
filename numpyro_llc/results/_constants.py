"""The model's arguments as the group ``constant_data`` holds them."""

import jax
import numpy as np

from numpyro_llc.models import ModelReading, on_host


def constants_of(reading: ModelReading) -> dict[str, np.ndarray]:
    """The model's array arguments by name, less those that are the observations themselves."""
    with reading.program.knowing():
        named = reading.program.arguments.names(reading.program.model, reading.data)
    observed = [on_host(value) for value in reading.observations.values()]
    arrays = {name: _plain(array) for name, array in named.items()}
    return {
        name: array
        for name, array in arrays.items()
        if not any(np.array_equal(array, value) for value in observed)
    }


def _plain(array: jax.Array | np.ndarray) -> np.ndarray:
    """An argument as files hold it: random keys as their words, objects as texts."""
    value = on_host(array)
    return value.astype(str) if value.dtype == object else value
