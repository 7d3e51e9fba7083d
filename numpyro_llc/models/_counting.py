"""Whether data are counted as often as they are there."""

import math

import jax.numpy as jnp

from numpyro_llc.errors import warn
from numpyro_llc.models._reading import ModelReading
from numpyro_llc.models._rules import is_traced


def check_counted_once(
    reading: ModelReading, num_data: int, batch_size: int, *, counted: float = 1.0
) -> None:
    """Warn of a model that scales a batch to all the data, which is done for it.

    Parameters
    ----------
    counted : float
        How many data each of the rows that were read counts as already.
    """
    if is_traced(reading.data_weights):  # numbers are not known yet
        return
    for name, weights in reading.data_weights.items():
        if weights.size == 0 or jnp.min(weights) < jnp.max(weights):  # weights of the data
            continue
        own = float(jnp.mean(weights)) / counted
        for rows in (batch_size, round(num_data / counted)):
            if rows < num_data and math.isclose(own, num_data / rows, rel_tol=1e-3):
                warn(
                    f"The model multiplies the log likelihood of site {name!r} by {own:g} "
                    f"(numpyro.handlers.scale, or a plate with subsample_size), as {rows} rows of "
                    f"{num_data} would need. Here batches count for all the data already: take the "
                    "factor out of the model, unless each row stands for so many."
                )
                return


def check_num_data_of_model(reading: ModelReading, given: int | None, batch_size: int) -> None:
    """Warn of an n that is the size of a batch; 0 is no batch.

    Other numbers have their uses: n of sequences in a plate of tokens, or of the data that a loss
    of few terms stands for.
    """
    if given != batch_size or is_traced(reading.data_counts):
        return
    try:
        own = reading.num_data()
    except ValueError:  # n is in doubt, and therefore given
        return
    if given < own:
        warn(
            f"`num_data` is {given}, as `batch_size` is, and the model observes {own} data. n "
            "counts all independent data: it sets the default of β. Leave it out."
        )
