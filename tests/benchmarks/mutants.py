"""How many small faults the tests notice: ``python tests/benchmarks/mutants.py --count 12``.

A mutant is the package with one change in a module that computes numbers: another constant, another
sign or operator, a term dropped, a comparison turned round. The first-tier tests of the module run
against it, and notice it if one fails. Which changes are tried depends on the seed alone.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TESTS = {
    "estimators": ["estimators"],
    "evidence/_compare.py": ["free_energy"],
    "evidence/_criteria.py": ["free_energy"],
    "evidence/_free_energy.py": ["free_energy"],
    "evidence/_multiplicity.py": ["free_energy"],
    "evidence/_phases.py": ["phases"],
    "evidence/_rungs.py": ["free_energy"],
    "evidence/_splitting.py": ["volume"],
    "evidence/_volume.py": ["volume"],
    "kernels": ["rules", "acceptance", "stochastic", "mcmc", "gradients"],
    "known/exact": ["exact"],
    "known/zoo": ["zoo"],
    "local/_center.py": ["center"],
    "local/_curvature.py": ["curvature", "derivatives"],
    "local/_derivatives.py": ["derivatives"],
    "local/_edge.py": ["edge"],
    "local/_evaluation.py": ["gradients"],
    "local/_gradients.py": ["gradients"],
    "local/_growth.py": ["growth"],
    "local/_localize.py": ["handlers"],
    "local/_parts.py": ["refined"],
    "local/_spectrum.py": ["localization"],
    "local/_starts.py": ["curvature"],
    "local/_target.py": ["known_answers", "handlers", "estimate"],
    "models": ["models", "properties", "batches", "networks", "discrete", "truth"],
    "pointwise": ["pointwise"],
    "results": ["diagnose", "estimators", "inference_data"],
    "results/checks": ["diagnose", "estimators"],
    "sampling": ["checkpoint", "estimate", "limits", "output", "sweep"],
    "studies": ["sweep", "trajectory", "refined", "localization", "changes"],
}
"""Files and folders of the package that compute numbers, and the tests that speak for them."""
OPPOSITE = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}


class Mutant(NamedTuple):
    """One change of one file: the text between two offsets, and what stands there instead."""

    path: Path
    line: int
    start: int
    end: int
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {self.old}  ->  {self.new}"

    def write(self, root: Path) -> None:
        """Change the file of the copy at `root`."""
        source = (ROOT / self.path).read_bytes()
        changed = source[: self.start] + f"({self.new})".encode() + source[self.end :]
        (root / self.path).write_bytes(changed)


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in the place of a node."""
    match node:
        case ast.Constant(value=bool()):
            return
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(1.5 * value if value else 1.0)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPPOSITE:
            yield ast.BinOp(left, OPPOSITE[type(op)](), right)
            if isinstance(op, ast.Add | ast.Sub):
                yield left
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Compare(left=left, ops=[op], comparators=right) if type(op) in OPPOSITE:
            yield ast.Compare(left, [OPPOSITE[type(op)]()], right)


def numeric_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that numbers come from: not those of messages, types, decorators and texts."""
    for child in ast.iter_child_nodes(tree):
        match child:
            case ast.Raise() | ast.JoinedStr() | ast.Assert() | ast.Import() | ast.ImportFrom():
                continue
            case ast.BinOp(op=ast.BitOr()):  # a union of types
                continue
            case ast.FunctionDef():
                yield from (node for part in child.body for node in numeric_nodes(part))
                continue
            case ast.AnnAssign(value=value):
                yield from numeric_nodes(ast.Expr(value)) if value else ()
                continue
        yield child
        yield from numeric_nodes(child)


def mutants_of(module: str) -> list[Mutant]:
    """All changes of a file, or of the files of a folder."""
    place = ROOT / "numpyro_llc" / module
    found = []
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        source = path.read_text()
        offsets = [0]
        for text in source.encode().splitlines(keepends=True):
            offsets.append(offsets[-1] + len(text))
        for node in numeric_nodes(ast.parse(source)):
            for new in changes(node):
                start = offsets[node.lineno - 1] + node.col_offset
                end = offsets[node.end_lineno - 1] + node.end_col_offset
                old = " ".join(ast.unparse(node).split())
                found.append(
                    Mutant(path.relative_to(ROOT), node.lineno, start, end, old, ast.unparse(new))
                )
    return found


def is_noticed(mutant: Mutant, tests: list[str], timeout: float) -> bool:
    """Whether a test fails, or does not end."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("numpyro_llc", "tests", "examples", "pyproject.toml", "README.md", "docs"):
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, root / name)
        mutant.write(root)
        files = [f"tests/test_{name}.py" for name in tests]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
        try:
            run = subprocess.run(
                command, cwd=root, env=environment, timeout=timeout, capture_output=True
            )
        except subprocess.TimeoutExpired:
            return True
        return run.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--count", type=int, default=5, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="those whose 'path:line' is named, all of them")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds of one mutant")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="say which, and run none")
    given = parser.parse_args()
    chosen = {}
    for module in given.modules:
        every = mutants_of(module)
        few = random.Random(f"{given.seed} {module}").sample(every, min(given.count, len(every)))
        if given.only is not None:
            few = [one for one in every if f"{one.path}:{one.line}" in given.only]
        chosen[module] = sorted(few)
    if given.list:
        print("\n".join(str(one) for few in chosen.values() for one in few))
        return
    with ThreadPoolExecutor(given.jobs) as pool:
        for module, few in chosen.items():
            noticed = pool.map(lambda one, m=module: is_noticed(one, TESTS[m], given.timeout), few)
            missed = [one for one, is_seen in zip(few, noticed, strict=True) if not is_seen]
            print(f"{module:16s} {len(few) - len(missed):3d} of {len(few):3d}", flush=True)
            for one in missed:
                print(f"    missed: {one}", flush=True)


if __name__ == "__main__":
    main()
