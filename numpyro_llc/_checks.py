"""Checks of arguments, made once, in the public functions; how messages write numbers."""

import math
import numbers
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import SupportsFloat, cast

import jax
import jax.numpy as jnp
import numpy as np

MOST_DATA = 10**18
"""More is taken for a mistake: a number of bytes, or a float that was meant to be infinite."""
OtherArguments = tuple[object, ...] | list[object] | Mapping[str, object]
"""Other data: in place of `model_args`, or of entries of `model_kwargs`."""
Gamma = float | jax.core.Tracer
"""γ of a site: a number, or within a user's traced function what stands for one."""
AUTOMATIC = "auto"
"""The `localization` that is chosen at the centre, by the functions that can."""


def shown(value: object) -> str:
    """A value as messages have it: its type where its text is long, as that of a result is."""
    text = repr(value)
    return type(value).__name__ if len(text) > 80 or "\n" in text else text


def number(value: float, digits: int = 4) -> str:
    """A number as messages have it: 16590 and not 1.659e+04, but 1.3e-07."""
    short = f"{value:z.{digits}g}"
    if not math.isfinite(value) or value and not 1e-4 <= abs(value) < 1e7:
        return short
    return format(Decimal(short), "f")


def percent(share: float, digits: int = 3) -> str:
    """A share as messages have it, such as "100 %"."""
    return f"{number(100 * share, digits)} %"


def check_integer(name: str, value: object, *, minimum: int, meaning: str) -> int:
    """Return `value` as an int of at least `minimum`, or raise."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Integral, np.integer)):
        raise TypeError(f"`{name}` must be an integer; got {value!r}. {meaning}")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}; got {value}. {meaning}")
    return int(value)


def check_positive(name: str, value: object, *, meaning: str, zero: bool = False) -> float:
    """Return `value` as a finite float above zero (``zero=True``: or zero), or raise."""
    try:
        number = float("" if isinstance(value, bool | str) else cast(SupportsFloat, value))
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be a number; got {value!r}. {meaning}") from None
    except OverflowError:  # of an integer
        number = math.inf
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        rule = "at least 0" if zero else "positive"
        raise ValueError(f"`{name}` must be finite and {rule}; got {value!r}. {meaning}")
    return number


def check_truth(name: str, value: object) -> None:
    """Refuse texts and numbers, of which nearly all would count as True."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` must be True or False; got {value!r}.")


def check_key(rng_key: object) -> jax.Array:
    """Return `rng_key` as one JAX key (new or old style); an integer is refused with the remedy."""
    if not isinstance(rng_key, jax.Array | np.ndarray) or not _is_one_key(rng_key):
        raise TypeError(
            f"`rng_key` must be one JAX random key; got {type(rng_key).__name__}. "
            "Make one with jax.random.key(0)."
        )
    if isinstance(jnp.zeros(()), jax.core.Tracer) or isinstance(rng_key, jax.core.Tracer):
        raise TypeError(
            "This function takes decisions from computed numbers, so it cannot run inside jax.jit, "
            "jax.vmap or another traced function. Call it outside, once for each data set; it "
            "compiles its steps itself. MCMC(NUTS(nllc.localize(model, center=...))).run works "
            "inside."
        )
    return cast(jax.Array, rng_key)


def _is_one_key(array: jax.Array | np.ndarray) -> bool:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array.ndim == 0
    return array.dtype == np.uint32 and array.ndim == 1


def check_num_data(num_data: object) -> int:
    """Return `num_data` as an int of at least 2."""
    meaning = "It counts data points, not batches."
    number = check_integer("num_data", num_data, minimum=2, meaning=meaning)
    if number > MOST_DATA:
        raise ValueError(f"`num_data` must be at most {MOST_DATA:.0e}; got a larger one. {meaning}")
    return number


def inverse_temperature_or_default(inverse_temperature: object, num_data: int) -> float:
    """Return β: the number given, or ``1 / log(num_data)`` (Watanabe 2013)."""
    if inverse_temperature is None:
        return 1.0 / math.log(num_data)
    return check_positive(
        "inverse_temperature",
        inverse_temperature,
        meaning="It multiplies the summed loss; leave it out for 1 / log(num_data).",
    )


def check_localization(localization: object, sites: Iterable[str]) -> dict[str, Gamma]:
    """Return γ for each site: one number for all, or ``{site: number}`` naming each site."""
    names = list(sites)
    given = (
        localization if isinstance(localization, Mapping) else dict.fromkeys(names, localization)
    )
    if set(given) != set(names):
        raise ValueError(
            f"`localization` must be a number or name each parameter site {names}; "
            f"got a dict of {list(given)}."
        )
    return {name: check_gamma(given[name]) for name in names}


def check_gammas(localization: object) -> None:
    """Check γ before its sites are known: a number, by site, or "auto"."""
    if not is_automatic(localization):
        given = localization.values() if isinstance(localization, Mapping) else [localization]
        for gamma in given:
            check_gamma(gamma)


def is_automatic(localization: object) -> bool:
    """Whether γ is to be chosen at the centre."""
    return isinstance(localization, str) and localization == AUTOMATIC


def check_gamma(gamma: object) -> Gamma:
    """Return one γ, at least 0; that of a traced function as it is."""
    if is_automatic(gamma):
        raise ValueError(
            "`localization='auto'` is for estimate_llc and llc_trajectory. Elsewhere give a "
            "number, such as choose_localization(...).localization."
        )
    if isinstance(gamma, jax.core.Tracer):
        return gamma
    meaning = (
        "It is the precision of the Gaussian around the centre, in unconstrained space; a dict "
        "gives it by site, and 'auto' has it chosen."
    )
    return check_positive("localization", gamma, meaning=meaning, zero=True)


def check_other_data(evaluate_on: object) -> dict[str, OtherArguments]:
    """Return `evaluate_on` as a dict by name, each a tuple of arguments or a dict of them."""
    if evaluate_on is None:
        return {}
    if not isinstance(evaluate_on, Mapping):
        raise TypeError(
            "`evaluate_on` must be a dict {name: arguments}; got "
            f"{type(evaluate_on).__name__}. Write evaluate_on={{'test': (x, y)}}."
        )
    for name, data in evaluate_on.items():
        if not isinstance(name, str) or not isinstance(data, tuple | list | Mapping):
            raise TypeError(
                f"`evaluate_on[{name!r}]` must be a tuple in place of `model_args`, or a dict in "
                f"place of entries of `model_kwargs`; got {type(data).__name__}."
            )
    return dict(evaluate_on)
