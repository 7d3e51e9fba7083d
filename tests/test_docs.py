"""The pages of docs/: links, reach, the reference of public names, and code that fits the API."""

import ast
import doctest
import inspect
import re
import types
import warnings
from pathlib import Path

import pytest

import numpyro_llc as nllc
from numpyro_llc import plots
from numpyro_llc.estimators import ESTIMATORS
from numpyro_llc.kernels import _registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    page
    for page in sorted(DOCS.rglob("*"))
    if page.suffix in (".md", ".rst") and not {"_build", "_templates", "generated"} & {*page.parts}
]
MARKDOWN = [ROOT / "README.md", *(page for page in PAGES if page.suffix == ".md")]
ROOMS = ("evidence", "pointwise", "exact", "zoo", "estimators", "plots")


def _names(pages):
    return [str(page.relative_to(ROOT)) for page in pages]


def _anchors(page):
    """Anchors of the headings of a page, as MyST and Git hosts make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    texts = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", MARKDOWN, ids=_names(MARKDOWN))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", text):
        if target.startswith("http"):
            continue
        path = page if target == "" else (page.parent / target)
        assert path.exists(), f"{target} of {page.name}"
        assert not anchor or anchor in _anchors(path), f"{target}#{anchor} of {page.name}"


TOLD = {
    "how-to/kernels.md": [*_registry._STOCHASTIC, *_registry._NUMPYRO],
    "reference/known-answers.md": list(ESTIMATORS),
}


@pytest.mark.parametrize(("page", "name"), [(p, name) for p in TOLD for name in TOLD[p]])
def test_kernels_and_estimators_are_on_their_pages(page, name):
    assert re.search(rf"(?i)\b{name}\b", (DOCS / page).read_text())


def _entries(page):
    """Pages that the toctrees of a page list."""
    for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
        for entry in block.split():
            if not entry.startswith(":"):
                yield from page.parent.glob(entry if entry.endswith("*") else f"{entry}.*")


def test_every_page_is_reachable_from_the_first():
    seen, new = set(), {DOCS / "index.md"}
    while new:
        seen |= new
        new = {entry for page in new for entry in _entries(page) if entry in PAGES} - seen
    assert set(PAGES) - seen == set()


def _documented():
    """Every object that the reference lists, by its full name."""
    module, found = "", {}
    for line in (DOCS / "reference" / "api.rst").read_text().splitlines():
        if line.startswith(".. currentmodule:: numpyro_llc"):
            module = line.split("numpyro_llc")[1].strip(".")
        elif re.fullmatch(r"   [A-Za-z_.]+", line):
            name = f"{module}.{line.strip()}".strip(".")
            value = nllc
            for part in name.split("."):
                value = getattr(value, part)
            found[name] = value
    return found


def test_every_public_name_is_in_the_reference():
    found = _documented()
    objects = {id(value) for value in found.values()}
    for room in ("", *ROOMS):
        module = getattr(nllc, room) if room else nllc
        for name in module.__all__:
            value = getattr(module, name)
            full = f"{room}.{name}".strip(".")
            is_known = full in found or (callable(value) and id(value) in objects)
            assert is_known or isinstance(value, types.ModuleType), full


EXAMPLES = {
    name: tests
    for name, value in _documented().items()
    if (tests := doctest.DocTestFinder(recurse=False).find(value, name)) and tests[0].examples
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_docstrings_run(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        for test in EXAMPLES[name]:
            assert doctest.DocTestRunner().run(test).failed == 0


def _blocks(page):
    for block in re.findall(r"```(?:python|\{code-cell\})\n(.*?)```", _unindented(page), re.DOTALL):
        yield "\n".join(line for line in block.splitlines() if not line.startswith(":"))


def _unindented(page):
    """The text of a page, with code blocks of list items at the margin."""
    text = page.read_text()
    return re.sub(
        r"^( +)```python\n(.*?)^\1```",
        lambda found: re.sub(rf"^{found[1]}", "", found[0], flags=re.MULTILINE),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def _dotted(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def _check_call(call):
    """A call of this package takes the arguments that a page gives it."""
    root, *parts = _dotted(call.func).split(".")
    known = {"nllc": nllc, "plots": plots}
    if root not in known or not parts:
        return
    function = known[root]
    for part in parts:
        function = getattr(function, part)
    is_open = any(isinstance(value, ast.Starred) for value in call.args)
    names = {keyword.arg for keyword in call.keywords}
    if is_open or None in names or any(_is_dots(value) for value in call.args):
        return
    inspect.signature(function).bind(*call.args, **dict.fromkeys(names))


def _is_dots(node):
    return isinstance(node, ast.Constant) and node.value is Ellipsis


@pytest.mark.parametrize("page", MARKDOWN, ids=_names(MARKDOWN))
def test_code_on_a_page_fits_the_public_names(page):
    for block in _blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call):
                _check_call(node)


def test_a_call_that_does_not_fit_is_noticed():
    with pytest.raises(TypeError, match="missing"):
        _check_call(ast.parse("nllc.summary()").body[0].value)
    with pytest.raises(TypeError, match="unexpected keyword"):
        _check_call(ast.parse("nllc.summary(idata, prob=0.9)").body[0].value)
    with pytest.raises(AttributeError):
        _check_call(ast.parse("nllc.sumary(idata)").body[0].value)


SMALL = """
import jax, jax.numpy as jnp, numpy as np, numpyro, numpyro.distributions as dist, optax
import numpyro_llc as nllc
from numpyro_llc import plots

def model(x, y):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    log_scale = numpyro.sample("log_scale", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, jnp.exp(log_scale)), obs=y)

def apply(params, x):
    return x * params

x = np.linspace(-1.0, 1.0, 1000)
y = x + np.random.default_rng(0).normal(size=1000)
key, params, n, k = jax.random.key(0), jnp.asarray(1.0), 1000, 1
center = nllc.find_center(key, model, (x, y))
local = nllc.localize(model, center=center)
idata = nllc.estimate_llc(key, local, (x, y), progress_bar=False)
"""
NETWORK = """
from flax import linen, nnx
from numpyro.contrib.module import flax_module

class MLP(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(4)(linen.tanh(linen.Dense(2)(x)))

class Linear(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(64, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.linear(x)

def apply(params, x):
    return module.apply({"params": params}, x)

x = np.random.default_rng(1).normal(size=(1000, 64)).astype(np.float32)
y = x[:, :4].argmax(1)
module, stats, net = MLP(), {}, Linear()
params = module.init(key, x)["params"]
model = nllc.network_model(apply, params, "categorical")
mask = jax.tree.map(lambda leaf: np.arange(leaf.size).reshape(leaf.shape) < 2, params)
moved = jax.tree.map(lambda leaf: 1.1 * leaf, params)
checkpoints, steps = [{"params": params}, {"params": moved}], [0, 10]
first, middle, last = moved, moved, params
"""
FROM_MCMC = """
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

args, guide = (x, y), AutoNormal(model)
svi = SVI(model, guide, numpyro.optim.Adam(0.05), Trace_ELBO())
svi_result = svi.run(key, 200, *args, progress_bar=False)
mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=100, progress_bar=False)
mcmc.run(key, *args)
"""
RESULTS = """
def model(x, y):
    slopes = numpyro.sample("slopes", dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(2))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(slopes.sum() * x, 1.0), obs=y)

local = nllc.localize(model, center={"slopes": np.full((2, 2), 0.25)})
"""
DESIGN = """
from functools import partial
from numpyro_llc import exact
from numpyro_llc.estimators._formulas import corrected, mean
from numpyro_llc.kernels._kernel import StochasticKernel
from numpyro_llc.kernels._langevin import LangevinRule
from numpyro_llc.results.checks._check import CheckInput, Outcome, at_most
from numpyro_llc.results.checks._kernel import DIVERGENCE_LIMIT
from numpyro_llc.known.zoo import Problem

def register(problem):  # leaves no model behind
    assert problem(100).expectation().mean > 0
"""
LARGE_DATA = """
np.save("x.npy", x); np.save("y.npy", y)
dataset, x_eval, y_eval = list(zip(x, y)), x[::5], y[::5]
train_loader = [(x[k], y[k]) for k in np.random.default_rng(0).integers(len(x), size=(12, 100))]
loader = [np.zeros((size, 784)) for size in (256, 256, 256, 232)]
"""
RUN = {
    "index": "",
    "explanation/design": DESIGN,
    "how-to/findings": "",
    "how-to/from-mcmc": FROM_MCMC,
    "how-to/hierarchical": "",
    "how-to/kernels": "from numpyro.infer import MCMC",
    "how-to/large-data": LARGE_DATA,
    "how-to/localization": 'checkpoints = [{"slope": 0.5, "log_scale": 0.1}, center.params]',
    "how-to/loss": "",
    "how-to/model-comparison": 'args, centers = (x, y), {"one": center, "other": center.params}',
    "how-to/networks": NETWORK,
    "how-to/plots": "",
    "how-to/posterior": "",
    "how-to/report": "",
    "how-to/resume": "",
    "how-to/sweep": "",
    "reference/diagnostics": "",
    "reference/known-answers": "x = np.linspace(-1.0, 1.0, 1000)[:, None]",
    "reference/results": RESULTS,
}
"""What a page takes as given beside ``SMALL``."""
ELSEWHERE = {"how-to/devices", "how-to/discrete", "how-to/workflow", "how-to/speed"}
"""Pages whose blocks run in tests of their own, and settings of JAX."""
NEEDS_A_CLUSTER = {"how-to/clusters"}
"""Its calls are compared with the API."""


def test_the_code_of_every_page_runs_somewhere():
    """That of tutorials, and of a page that lists imports, when the site is built."""
    own = [
        page for page in MARKDOWN if page.parent.name != "tutorials" and page.name != "README.md"
    ]
    with_code = {str(page.relative_to(DOCS))[:-3] for page in own if any(_blocks(page))}
    assert with_code - {"reference/functions"} == {*RUN} | ELSEWHERE | NEEDS_A_CLUSTER


def text_of(page):
    return (DOCS / f"{page}.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiled_code")
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(f"{SMALL}\n{RUN[page]}", names)
    said = re.findall(r"<!-- not run:.*?-->\n\n```python\n(.*?)```", text_of(page), re.DOTALL)
    for block in _blocks(DOCS / f"{page}.md"):
        if f"{block}\n" in said:
            continue
        if page == "how-to/networks":  # whose blocks use names for something else than the last
            exec(RUN[page], names)
        exec(block, names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_the_example_of_the_readme_runs(capsys):
    for block in _blocks(ROOT / "README.md"):
        exec(block, {})
    assert "mcse_mean" in capsys.readouterr().out
