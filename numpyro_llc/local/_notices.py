"""What a model's reading tells before time is spent on it."""

from collections.abc import Mapping

import jax.numpy as jnp

from numpyro_llc._checks import check_num_data
from numpyro_llc.errors import warn
from numpyro_llc.models import TAKEN, ModelReading, named_leaves


def warn_before_search(reading: ModelReading, num_data: int | None) -> None:
    """Warn, before time is spent, of what estimate_llc will refuse or report."""
    doubts = []
    try:
        reading.num_data(None if num_data is None else check_num_data(num_data))
    except ValueError as error:
        doubts.append(f"`find_center` does without n, but `localize` will not: {error}")
    if taken := [name for name in reading.center if name in TAKEN]:
        doubts.append(
            f"The model has a site {taken[0]!r}, a name that results take: estimate_llc cannot "
            "store it. Rename it in the model, or leave it out with `store_sites`."
        )
    if names := reading.without_effect:
        sizes = named_leaves(reading.center)
        doubts.extend(without_effect_text({name: int(jnp.size(sizes[name])) for name in names}))
    if doubts:
        warn(" ".join(doubts))


def without_effect_text(sizes: Mapping[str, int]) -> tuple[str, str]:
    """What parameters that never reach the loss mean, and what to do; `sizes` by name."""
    return (
        f"The loss does not depend on {', '.join(map(repr, sizes))} ({sum(sizes.values())} of the "
        "parameters: hyperparameters, or sites that `do` replaces?), which add 0 to λ̂ and count "
        "in d.",
        "Leave them out with `sites` of localize, which names those to sample.",
    )
