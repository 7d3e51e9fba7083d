"""Draws that outlive what goes wrong after sampling."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import xarray as xr

from numpyro_llc.errors import DataError, LLCWarning, NonFiniteLossError, ResultError
from numpyro_llc.inference_data import InferenceData, inference_data, labelled
from numpyro_llc.local import LocalTarget
from numpyro_llc.models import named_leaves, reading_errors
from numpyro_llc.sampling import Draws

CHAIN_DRAW = ("chain", "draw")
"""Leading axes of draws."""


@contextmanager
def keeping(draws: Draws, target: LocalTarget) -> Iterator[None]:
    """Turn what goes wrong inside into a ``ResultError`` that holds the draws.

    Errors that hold a result pass, and so do Ctrl-C and a read that failed, with the draws as
    their attribute ``idata``.
    """
    try:
        with reading_errors():
            yield
    except (LLCWarning, NonFiniteLossError, ResultError):
        raise
    except DataError as error:
        error.idata = bare(draws, target)
        raise
    except Exception as error:
        raise ResultError(
            "The draws are made and are in the attribute `idata` of this error, but they could not "
            f"be put together as a result ({type(error).__name__}: {error}).",
            idata=bare(draws, target),
        ) from error
    except KeyboardInterrupt as error:
        vars(error)["idata"] = bare(draws, target)
        raise


def bare(draws: Draws, target: LocalTarget) -> InferenceData:
    """The draws alone."""
    beta = float(target.inverse_temperature)
    statistics = {k: v for k, v in draws.statistics.items() if np.ndim(v) == len(CHAIN_DRAW)}
    groups = {
        "posterior": {"llc": beta * draws.excess_loss},
        "sample_stats": {"excess_loss": draws.excess_loss, **statistics},
        "unconstrained_posterior": named_leaves(draws.positions),
    }
    attrs = {"inverse_temperature": beta}
    data: dict[str, xr.Dataset] = {
        name: labelled(arrays, lead=CHAIN_DRAW) for name, arrays in groups.items()
    }
    return inference_data(data, attrs)
