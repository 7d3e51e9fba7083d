"""Products of matrices as exact as their factors, on every device."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, cast

import jax
from jax.typing import ArrayLike

SETTING = "jax_default_matmul_precision"
FULL = "float32", "highest"
"""Its values that round no float32."""
_Function = TypeVar("_Function", bound=Callable)


def unrounded(function: _Function) -> _Function:
    """`function`, whose products of float32 matrices do not round their factors.

    By default XLA rounds them to 10 bits on a GPU (TF32) and to 7 on a TPU, where float32 has 23.
    What the user has set (``SETTING``) or given to a product is kept.
    """

    @wraps(function)
    def run(*args: ArrayLike, **kwargs: ArrayLike) -> object:
        if getattr(jax.config, SETTING) is not None:
            return function(*args, **kwargs)
        with jax.default_matmul_precision("float32"):
            return function(*args, **kwargs)

    return cast(_Function, run)


def rounded_to() -> str | None:
    """What the user has set that products of float32 matrices round their factors to; or None."""
    chosen: str | None = getattr(jax.config, SETTING)
    return None if chosen in FULL else chosen
