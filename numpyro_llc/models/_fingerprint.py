"""What a traced function computes: a hash of it, and which parameters it does not use."""

import hashlib
import re
from collections.abc import Iterator

import jax
from jax.extend.core import ClosedJaxpr
from jax.interpreters.partial_eval import dce_jaxpr

from numpyro_llc.models._host import on_host
from numpyro_llc.models._leaves import named_leaves
from numpyro_llc.models._types import Parameters


def fingerprint(jaxpr: ClosedJaxpr) -> str:
    """Of what the model computes, numbers and arrays that it reads from outside included.

    A model may close over data, which Python code then changes: compiled code would not notice.
    """
    text = re.sub(r"0x[0-9a-f]+", "", str(jaxpr.jaxpr))
    digest = hashlib.sha256(text.encode())
    for constant in _constants_of(jaxpr):
        if isinstance(constant, jax.core.Tracer):
            continue
        digest.update(on_host(constant).tobytes())
    return digest.hexdigest()


def unused_leaves(jaxpr: ClosedJaxpr, z: Parameters) -> tuple[str, ...]:
    """Names of the leaves of `z`, the first argument, that no output depends on."""
    _, used = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.out_avals))
    names = named_leaves(dict(sorted(z.items())))  # the order of a dict's leaves
    return tuple(name for name, is_used in zip(names, used, strict=False) if not is_used)


def _constants_of(part: object) -> Iterator[object]:
    """Constants of a closed jaxpr and of all that are nested in it, as those of a jit inside."""
    if isinstance(part, list | tuple):
        for item in part:
            yield from _constants_of(item)
    elif hasattr(part, "eqns"):
        yield from getattr(part, "consts", ())
        for equation in part.eqns:
            yield from _constants_of(list(equation.params.values()))


def calls(part: object, primitive: str) -> bool:
    """Whether a jaxpr, or one nested in it, has an equation whose primitive's name begins so."""
    if isinstance(part, list | tuple):
        return any(calls(item, primitive) for item in part)
    return any(
        equation.primitive.name.startswith(primitive)
        or calls(list(equation.params.values()), primitive)
        for equation in getattr(part, "eqns", ())
    )
