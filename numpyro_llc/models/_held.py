"""Find the array arguments whose values a model reads, by trying, and hold them as structure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax

from numpyro_llc.models._arguments import StaticArguments
from numpyro_llc.models._center_values import CenterValues
from numpyro_llc.models._program import Program
from numpyro_llc.models._types import Arrays, Parameters


def hold_what_is_read(
    unread: Program,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None,
    given: Parameters | None,
    init_strategy: Callable,
) -> tuple[Program, Arrays] | None:
    """The program and its runtime arrays, those arrays held as structure whose values it reads.

    None if it runs with all of them as runtime arrays, or does not even with all their values. An
    array is read if the model fails without its values while it knows those of all others. It is
    held as a JAX array, or, where only that runs, as it was given.
    """
    split = unread.arguments
    raw = enumerate(split.as_given(args, kwargs))
    known = {place: leaf for place, leaf in raw if not isinstance(leaf, jax.core.Tracer)}

    def runs(arguments: StaticArguments) -> bool:
        program = replace(unread, arguments=arguments)

        def trace(given: Parameters | None, arrays: Arrays) -> None:
            program.trace(arrays, CenterValues(given, init_strategy))

        try:
            jax.eval_shape(trace, given, arguments.arrays_of(args, kwargs))
        except Exception:  # whatever a model raises that misses its numbers
            return False
        return True

    def is_read(place: int, as_given: bool) -> bool:
        others = {k: leaf for k, leaf in known.items() if k != place}
        return not runs(split.holding(others, as_given=as_given))

    if runs(split):
        return None
    for as_given in (False, True):
        whole = split.holding(known, as_given=as_given)
        if runs(whole):
            read = {k: leaf for k, leaf in known.items() if is_read(k, as_given)}
            found = split.holding(read, as_given=as_given)
            found = found if runs(found) else whole
            return replace(unread, arguments=found), found.arrays_of(args, kwargs)
    return None
