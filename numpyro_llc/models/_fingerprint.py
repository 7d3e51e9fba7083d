"""What a traced function computes: a hash of it, and which parameters it does not use."""

import hashlib
import re
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr
from jax.interpreters.partial_eval import dce_jaxpr

from numpyro_llc.models._host import on_host
from numpyro_llc.models._leaves import named_leaves
from numpyro_llc.models._types import Parameters


def fingerprint(jaxpr: ClosedJaxpr) -> str:
    """Of what the model computes, numbers and arrays that it reads from outside included.

    A model may close over data, which Python code then changes: compiled code would not notice.
    Each value is hashed with how it was computed, and not the text of the program, in which the
    leaves of what a ``scan`` carries come in the order of a set: another in each process.
    """
    arguments = [_hashed(k, variable.aval) for k, variable in enumerate(jaxpr.jaxpr.invars)]
    return _hashed(*_outputs(jaxpr, arguments))


def _hashed(*parts: object) -> str:
    """A hash of texts, without the addresses of objects in memory."""
    text = re.sub(r"0x[0-9a-f]+", "", "\n".join(map(str, parts)))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_number(value: object) -> str:
    """A hash of a constant; of one that is being traced, of its type."""
    if isinstance(value, jax.core.Tracer):
        return _hashed(value.aval)
    array = on_host(value)
    return _hashed(array.dtype, array.shape, hashlib.sha256(array.tobytes()).hexdigest())


def _outputs(part: Any, arguments: list[str]) -> list[str]:
    """Hashes of what a jaxpr, closed or not, computes from arguments of these hashes."""
    jaxpr = _bare(part)
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= zip(jaxpr.constvars, map(_of_number, getattr(part, "consts", ())), strict=False)

    def look_up(variable: Any) -> str:
        if hasattr(variable, "val"):
            return _hashed(variable.aval, _of_number(variable.val))
        return known.get(variable, "")

    for equation in jaxpr.eqns:
        found = _of_equation(equation, [look_up(variable) for variable in equation.invars])
        known |= zip(equation.outvars, found, strict=True)
    return [look_up(variable) for variable in jaxpr.outvars]


def _of_equation(equation: Any, inputs: list[str]) -> list[str]:
    """Hashes of the outputs of an equation."""
    inner, plain = [], [equation.primitive.name]
    for name, value in sorted(equation.params.items()):
        jaxprs = [one for one in _listed(value) if hasattr(one, "eqns")]
        inner += [(name, one) for one in jaxprs]
        if not jaxprs:
            plain.append(f"{name} {sorted(map(str, value)) if _is_set(value) else value}")
    count = len(equation.outvars)
    if not inner:
        return [_hashed(*plain, *inputs, k) for k in range(count)]
    outer, carried = inputs, _carried(equation)
    # Twice around a loop: what goes round is what it began with, and what became of it.
    for _ in range(2 if carried else 1):
        found = [_outputs(one, _arguments(equation, name, one, outer)) for name, one in inner]
        if carried:
            outer = list(inputs)
            for k, place in enumerate(carried):
                outer[place] = _hashed(inputs[place], found[0][k])
    whole = [_hashed(*one) for one in found if len(one) != count]
    first = inputs[0] if equation.primitive.name == "cond" else ""
    ends = [one for one in found if len(one) == count]
    return [_hashed(*plain, first, *whole, *(one[k] for one in ends)) for k in range(count)]


def _carried(equation: Any) -> range:
    """Which inputs of a loop are those that go round; the first of its jaxprs returns them."""
    params, name = equation.params, equation.primitive.name
    if name == "scan":
        rows, inside = _rows_of(equation), _bare(params["jaxpr"]).outvars
        count = sum(map(_has_the_rank_of, equation.outvars, inside))  # what is stacked has one more
        return range(len(equation.invars) - rows - count, len(equation.invars) - rows)
    if name == "while":
        constants = params["cond_nconsts"] + params["body_nconsts"]
        return range(constants, len(equation.invars))
    return range(0)


def _arguments(equation: Any, name: str, part: Any, inputs: list[str]) -> list[str]:
    """Hashes of the arguments of a jaxpr of an equation."""
    params = equation.params
    if equation.primitive.name == "while":
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        own = inputs[: split[0]] if name == "cond_jaxpr" else inputs[split[0] : split[1]]
        return own + inputs[split[1] :]
    count = len(_bare(part).invars)
    if count > len(inputs):
        return [_hashed(k, *inputs) for k in range(count)]
    if equation.primitive.name == "scan":
        first = len(inputs) - _rows_of(equation)
        inputs = inputs[:first] + [_hashed("a row", one) for one in inputs[first:]]
    return inputs[len(inputs) - count :]


def _rows_of(scan: Any) -> int:
    """How many inputs of a scan, the last ones, it takes row by row."""
    inside = _bare(scan.params["jaxpr"]).invars
    return len(inside) - sum(map(_has_the_rank_of, scan.invars, inside))


def _has_the_rank_of(one: Any, other: Any) -> bool:
    return len(one.aval.shape) == len(other.aval.shape)


def _bare(part: Any) -> Any:
    """A jaxpr without its constants."""
    return getattr(part, "jaxpr", part)


def _is_set(value: object) -> bool:
    return isinstance(value, set | frozenset)


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def unused_leaves(jaxpr: ClosedJaxpr, z: Parameters) -> tuple[str, ...]:
    """Names of the leaves of `z`, the first argument, that no output depends on."""
    _, used = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.out_avals))
    names = named_leaves(dict(sorted(z.items())))  # the order of a dict's leaves
    return tuple(name for name, is_used in zip(names, used, strict=False) if not is_used)


def calls(part: object, primitive: str) -> bool:
    """Whether a jaxpr, or one nested in it, has an equation whose primitive's name begins so."""
    if isinstance(part, list | tuple):
        return any(calls(item, primitive) for item in part)
    return any(
        equation.primitive.name.startswith(primitive)
        or calls(list(equation.params.values()), primitive)
        for equation in getattr(part, "eqns", ())
    )
