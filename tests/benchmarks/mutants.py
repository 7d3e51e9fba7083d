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
    "estimate": ["estimate", "refined"],
    "estimators": ["estimators"],
    "estimators/_formulas.py": ["estimators"],
    "evidence/_compare.py": ["free_energy"],
    "evidence/_criteria.py": ["free_energy"],
    "evidence/_free_energy.py": ["free_energy"],
    "evidence/_ladder.py": ["free_energy"],
    "evidence/_multiplicity.py": ["free_energy"],
    "evidence/_phases.py": ["phases"],
    "evidence/_rungs.py": ["free_energy"],
    "evidence/_splitting.py": ["volume"],
    "evidence/_volume.py": ["volume"],
    "kernels": ["rules", "stochastic"],
    "kernels/_acceptance.py": ["acceptance", "stochastic"],
    "kernels/_ahead.py": ["sources"],
    "kernels/_calibration.py": ["rules", "stochastic"],
    "kernels/_kernel.py": ["mcmc"],
    "kernels/_noise.py": ["stochastic"],
    "kernels/_numpyro.py": ["estimate", "mcmc"],
    "kernels/_registry.py": ["estimate", "mcmc"],
    "kernels/_tuning.py": ["rules", "stochastic"],
    "known/exact": ["exact"],
    "known/zoo": ["zoo"],
    "local": ["handlers", "known_answers"],
    "local/_center.py": ["center"],
    "local/_curvature.py": ["curvature", "derivatives"],
    "local/_derivatives.py": ["derivatives"],
    "local/_doubt.py": ["center"],
    "local/_edge.py": ["edge"],
    "local/_evaluation.py": ["gradients", "truth"],
    "local/_gradients.py": ["gradients", "devices"],
    "local/_growth.py": ["growth"],
    "local/_lanczos.py": ["curvature", "localization"],
    "local/_near_center.py": ["diagnose"],
    "local/_parts.py": ["refined"],
    "local/_search.py": ["center"],
    "local/_shards.py": ["devices"],
    "local/_slices.py": ["sources"],
    "local/_slope.py": ["derivatives", "center"],
    "local/_spectrum.py": ["localization"],
    "local/_starts.py": ["curvature"],
    "local/_summed_out.py": ["discrete"],
    "local/_target.py": ["known_answers", "handlers"],
    "models": ["models", "properties"],
    "models/_arguments.py": ["arguments", "models"],
    "models/_axis_names.py": ["labels", "dimensions"],
    "models/_batching.py": ["batches"],
    "models/_computes.py": ["computes"],
    "models/_counting.py": ["batches", "streams"],
    "models/_convolutions.py": ["convolutions"],
    "models/_dependence.py": ["growth", "derivatives", "models"],
    "models/_discrete.py": ["discrete"],
    "models/_discrete_sites.py": ["discrete"],
    "models/_divergence.py": ["truth"],
    "models/_enumeration.py": ["discrete"],
    "models/_fingerprint.py": ["checkpoint", "models"],
    "models/_form.py": ["parameters", "networks"],
    "models/_host_array.py": ["sources"],
    "models/_held.py": ["arguments", "models"],
    "models/_leaves.py": ["labels", "networks"],
    "models/_loader.py": ["streams"],
    "models/_loss.py": ["losses"],
    "models/_module_rules.py": ["networks"],
    "models/_modules.py": ["networks"],
    "models/_network.py": ["networks"],
    "models/_plates.py": ["batches", "devices"],
    "models/_slices.py": ["sources"],
    "models/_sources.py": ["sources"],
    "models/_kept.py": ["truth"],
    "models/_stream.py": ["streams"],
    "models/_truth.py": ["truth"],
    "pointwise": ["pointwise"],
    "results": ["inference_data", "estimators", "diagnose"],
    "results/_penalty.py": ["estimators", "inference_data"],
    "results/checks": ["diagnose", "estimators"],
    "sampling": ["checkpoint", "estimate", "stochastic", "limits"],
    "sampling/_bar.py": ["bar"],
    "sampling/_devices.py": ["devices"],
    "sampling/_clock.py": ["limits"],
    "sampling/_draws.py": ["estimate", "checkpoint"],
    "sampling/_layout.py": ["devices", "estimate"],
    "sampling/_lengths.py": ["estimate", "stochastic", "limits"],
    "sampling/_lock.py": ["output"],
    "sampling/_on_stream.py": ["streams"],
    "sampling/_progress.py": ["output", "estimate"],
    "sampling/_output.py": ["output"],
    "studies": ["sweep", "trajectory"],
    "studies/_carry.py": ["trajectory"],
    "studies/_centers.py": ["trajectory"],
    "studies/_changes.py": ["changes"],
    "studies/_checkpoint_texts.py": ["trajectory"],
    "studies/_chosen_gamma.py": ["localization"],
    "studies/_localization.py": ["localization"],
    "studies/_trajectory.py": ["trajectory"],
    "studies/_trajectory_table.py": ["trajectory"],
    "studies/_walk.py": ["trajectory"],
}
"""Files and folders of the package that compute numbers, and the tests that speak for them: those
of a file, or else of its folder, the likeliest to notice first."""
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


def tests_of(path: Path) -> list[str]:
    """The tests that speak for a file of the package."""
    for place in (path, *path.parents):
        found = TESTS.get(place.as_posix().removeprefix("numpyro_llc/"))
        if found is not None:
            return found
    raise LookupError(path)


def noticed_by(mutant: Mutant, timeout: float) -> str:
    """The first test that fails or does not end; nothing if none does."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("numpyro_llc", "tests", "examples", "pyproject.toml", "README.md", "docs"):
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, root / name)
        mutant.write(root)
        files = [f"tests/test_{name}.py" for name in tests_of(mutant.path)]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
        cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
        environment = {**cache, **os.environ, "PYTHONPATH": folder}  # of tests' own processes too
        try:
            run = subprocess.run(
                command, cwd=root, env=environment, timeout=timeout, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return f"no end within {timeout:g} s"
        said = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return "" if run.returncode == 0 else (said or [f"exit status {run.returncode}"])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    wholes = [one for one in TESTS if not any(one.startswith(f"{other}/") for other in TESTS)]
    parser.add_argument("--modules", nargs="*", default=wholes, choices=list(TESTS))
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
            tests = pool.map(lambda one: noticed_by(one, given.timeout), few)
            missed = 0
            for one, test in zip(few, tests, strict=True):
                missed += not test
                print(f"    {one}\n        {test or 'missed'}", flush=True)
            print(f"{module:24s} {len(few) - missed:3d} of {len(few):3d} noticed", flush=True)


if __name__ == "__main__":
    main()
