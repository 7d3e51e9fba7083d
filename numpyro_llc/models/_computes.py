"""What a traced function computes, whatever the order of its text: the same in every process."""

import hashlib
import re
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from numpyro_llc.models._host import on_host


def computes(jaxpr: ClosedJaxpr) -> str:
    """A hash of each value with how it was computed.

    The text of a program differs between processes: the leaves of what a ``scan`` carries come in
    the order of a set, if they are those of a distribution.
    """
    arguments = [_of_type(k, one.aval) for k, one in enumerate(jaxpr.jaxpr.invars)]
    outputs, every = _outputs(jaxpr, arguments)
    return _hashed(*outputs, *sorted(every))  # what no output depends on is told apart too


def _hashed(*parts: object) -> str:
    """A hash of texts, without the addresses of objects in memory."""
    text = re.sub(r"0x[0-9a-f]+", "", "\n".join(map(str, parts)))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_type(*parts: Any) -> str:
    """A hash of the type of the last part, and of those before it."""
    *others, aval = parts
    return _hashed(*others, aval.shape, aval.dtype)


def _of_number(value: object) -> str:
    """A hash of a constant; of one that is being traced, of its type."""
    if isinstance(value, jax.core.Tracer):
        return _of_type(value.aval)
    array = on_host(value)
    return _hashed(array.dtype, array.shape, hashlib.sha256(array.tobytes()).hexdigest())


def _outputs(part: Any, arguments: list[str]) -> tuple[list[str], list[str]]:
    """Hashes of what a jaxpr, closed or not, computes from arguments of these hashes.

    Of what it returns, and of all that its equations give.
    """
    jaxpr = _bare(part)
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    for k, variable in enumerate(jaxpr.constvars):  # of an open one: whoever calls it has them
        known[variable] = _of_type("constant", k, variable.aval)
    known |= zip(jaxpr.constvars, map(_of_number, getattr(part, "consts", ())), strict=False)

    def look_up(variable: Any) -> str:
        if hasattr(variable, "val"):
            return _of_type(_of_number(variable.val), variable.aval)
        return known[variable]

    every = []
    for equation in jaxpr.eqns:
        found = _of_equation(equation, [look_up(variable) for variable in equation.invars])
        known |= zip(equation.outvars, found, strict=True)
        every += found
    return [look_up(variable) for variable in jaxpr.outvars], every


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
    outer, carried, apart = inputs, _carried(equation), 0
    # Around a loop, what goes round is what it began with and what became of it, until the turns
    # tell no more of them apart.
    while True:
        found = [_outputs(one, _arguments(equation, name, one, outer))[0] for name, one in inner]
        groups = len({outer[place] for place in carried})
        if groups <= apart:
            break
        outer, apart = list(outer), groups
        for k, place in enumerate(carried):
            outer[place] = _hashed(outer[place], found[0][k])
    whole = [_hashed(*one) for one in found if len(one) != count]
    ends = [one for one in found if len(one) == count]
    others = [] if carried else _not_passed(equation, inner, inputs)
    return [_hashed(*plain, *others, *whole, *(one[k] for one in ends)) for k in range(count)]


def _not_passed(equation: Any, inner: list[tuple[str, Any]], inputs: list[str]) -> list[str]:
    """Inputs that the jaxprs of an equation do not get one by one: what it chooses by, or all."""
    if equation.primitive.name == "cond":
        return inputs[:1]
    return [] if all(len(_bare(one).invars) == len(inputs) for _, one in inner) else inputs


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
