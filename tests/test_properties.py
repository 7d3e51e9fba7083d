"""Properties of whatever model, centre and names."""

import re
from contextlib import ExitStack
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions import constraints as support
from scipy.stats import norm

from numpyro_llc.inference_data import labelled, variable_name
from numpyro_llc.models import constrain, named_leaves, read_model
from numpyro_llc.results import sites_to_store

NEW = not version("arviz").startswith("0.")
RNG = np.random.default_rng(0)
ORDERED = dist.TransformedDistribution(
    dist.Normal(0.0, 1.0).expand([3]).to_event(1), dist.transforms.OrderedTransform()
)
SITES = {
    "real": (dist.Normal(0.0, 1.0), 0.3),
    "positive": (dist.Gamma(2.0, 1.0), 0.5),
    "unit interval": (dist.Beta(2.0, 3.0), 0.2),
    "interval": (dist.Uniform(-1.0, 3.0), 2.5),
    "greater than": (dist.TruncatedNormal(1.0, 2.0, low=1.0), 1.5),
    "less than": (dist.TruncatedNormal(1.0, 2.0, high=1.0), 0.5),
    "circle": (dist.VonMises(0.0, 1.0), 1.0),
    "simplex": (dist.Dirichlet(np.ones(3)), [0.2, 0.3, 0.5]),
    "ordered": (ORDERED, [0.1, 0.2, 0.5]),
    "cholesky": (dist.LKJCholesky(2), [[1.0, 0.0], [0.6, 0.8]]),
    "correlation": (dist.LKJ(2), [[1.0, 0.6], [0.6, 1.0]]),
    "vector": (dist.MultivariateNormal(np.zeros(2), np.eye(2)), [0.1, -0.2]),
    "improper": (dist.ImproperUniform(support.positive, (), (2,)), [0.3, 0.4]),
}
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, database=None)


X, Y = RNG.normal(size=(2, 4, 3, 2))
KEEP = np.arange(12).reshape(4, 3) % 3 > 0
CASES = [  # every pair of plates, event and mask
    (axes, plates, (k + j) % 2, mask, scale)
    for k, (axes, plates) in enumerate(
        ((1, ""), (1, "rows"), (2, "rows columns"), (2, "columns rows"))
    )
    for j, (mask, scale) in enumerate(((None, 2.5), ("handler", None), ("distribution", 2.5)))
]
IN_A_PLATE = ("real", "positive", "simplex", "vector")


def part(array, axes, event):
    """Data of so many batch and event axes."""
    array = array if axes == 2 else array[:, 0]
    return array if event else array[..., 0]


def observe(case, level, x, keep, y):
    axes, plates, event, mask, scale = case
    keep = keep if axes == 2 else keep[:, 0]
    base = dist.Normal(level + part(x, axes, event), 1.5).to_event(event)
    base = base.mask(keep) if mask == "distribution" else base
    frames = {"rows": (4, -axes), "columns": (3, -1)}
    with ExitStack() as stack:
        for name in plates.split():
            size, dim = frames[name]
            stack.enter_context(numpyro.plate(name, size, dim=dim))
        if mask == "handler":
            stack.enter_context(handlers.mask(mask=keep))
        if scale is not None:
            stack.enter_context(handlers.scale(scale=scale))
        numpyro.sample(str(case), base, obs=part(y, axes, event))


def everything(x, keep, y):
    """Every support, in a plate and alone, and data of every shape, plate, mask and scale."""
    level = jnp.zeros(())
    for name, (prior, _) in SITES.items():
        level += jnp.sum(numpyro.sample(name, prior))
    with numpyro.plate("groups", 2):
        for name in IN_A_PLATE:
            level += jnp.sum(numpyro.sample(f"{name} in a plate", SITES[name][0]))
    for case in CASES:
        observe(case, level, x, keep, y)


def test_losses_supports_and_priors_of_every_kind_of_site():
    center = {name: np.asarray(value) for name, (_, value) in SITES.items()}
    center |= {f"{name} in a plate": np.stack([SITES[name][1]] * 2) for name in IN_A_PLATE}
    priors = {name: SITES[name.removesuffix(" in a plate")][0] for name in center}
    reading = read_model(everything, (X, KEEP, Y), None, center=center)
    program, arrays = reading.program, reading.arrays
    moved = {name: np.asarray(leaf) + np.float32(0.1) for name, leaf in reading.center.items()}

    @jax.jit
    def look(moved, center):
        there, back = (constrain(program, tuple(priors), z, arrays) for z in (moved, center))
        density, inverse = 0.0, {}
        for name, prior in priors.items():
            transform = biject_to(prior.support)
            inverse[name] = transform.inv(there[name])
            log_det = transform.log_abs_det_jacobian(moved[name], there[name])
            density += jnp.sum(prior.log_prob(there[name])) + jnp.sum(log_det)
        inside = {name: jnp.all(prior.support(there[name])) for name, prior in priors.items()}
        by_program = program.losses(moved, arrays), program.prior_potential(moved, arrays)
        return there, back, inverse, inside, density, *by_program

    there, back, inverse, inside, density, losses, prior_potential = look(moved, reading.center)
    for case in CASES:
        axes, plates, event, mask, scale = case
        keep = KEEP if axes == 2 else KEEP[:, 0]
        for w, found in ((center, reading.center_losses), (there, losses)):
            level = sum(np.sum(np.asarray(value, float)) for value in w.values())
            wanted = -norm(level + part(X, axes, event), 1.5).logpdf(part(Y, axes, event))
            wanted = wanted.sum(axis=-1) if event else wanted
            wanted = np.where(keep | (mask is None), wanted, 0.0) * (scale or 1.0)
            np.testing.assert_allclose(found[str(case)], wanted, rtol=1e-4, atol=1e-4)
        count = keep.size if mask is None else keep.sum()
        assert reading.data_counts[str(case)] == count
        sizes = {"rows": 4, "columns": 3}
        assert reading.data_axes[str(case)].shape == keep.shape
        assert reading.data_axes[str(case)].plates == {k: sizes[k] for k in plates.split()}
    # There and back, and inside the support on the way.
    for name in priors:
        np.testing.assert_allclose(back[name], center[name], rtol=1e-5, atol=1e-6)
        assert inside[name]
        assert np.any(there[name] != center[name])
        np.testing.assert_allclose(inverse[name], moved[name], rtol=1e-3, atol=1e-4)
    assert float(prior_potential) == pytest.approx(-float(density), rel=1e-5)
    assert reading.dimension == sum(np.size(leaf) for leaf in moved.values())


# --- centres ------------------------------------------------------------------------------------


def three_sites(x, y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    net = numpyro.param("net", {"k": jnp.zeros(2), "j": [jnp.zeros(()), jnp.zeros((1, 2))]})
    mean = (a + b @ net["k"] + net["j"][0]) * x + net["j"][1].sum()
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


PLAIN = {"a": 2.0, "b": [1.0, -3.0], "net": {"k": [4.0, 0.0], "j": [5.0, [[-1.0, 2.0]]]}}
FORMS = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "jax": jnp.asarray,
    "numbers": lambda value: value,
}
DATA = (np.linspace(-1.0, 1.0, 6), np.linspace(0.0, 2.0, 6))
FIRST = read_model(
    three_sites,
    DATA,
    None,
    center={**PLAIN, "net": {"k": np.array([4.0, 0.0]), "j": [5.0, np.array([[-1.0, 2.0]])]}},
)


@given(
    st.permutations(["a", "b", "net"]),
    st.booleans(),
    st.lists(st.sampled_from(sorted(FORMS)), min_size=5, max_size=5),
)
@EXAMPLES
def test_order_and_dtype_of_a_center_change_nothing(order, turned, forms):
    a, b, k, j0, j1 = (
        FORMS[form](value)
        for form, value in zip(
            forms, (2.0, [1.0, -3.0], [4.0, 0.0], 5.0, [[-1.0, 2.0]]), strict=True
        )
    )
    k, j1 = np.asarray(k), np.asarray(j1)  # a list within a pytree is a pytree
    net = {"j": [j0, j1], "k": k} if turned else {"k": k, "j": [j0, j1]}
    given_center = {"a": a, "b": b, "net": net}
    reading = read_model(
        three_sites, DATA, None, center={name: given_center[name] for name in order}
    )
    assert reading.program == FIRST.program  # nothing compiles again
    assert hash(reading.program) == hash(FIRST.program)
    assert jax.tree.structure(reading.center) == jax.tree.structure(FIRST.center)
    for one, other in zip(*map(jax.tree.leaves, (reading.center, FIRST.center)), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    mean = (2.0 + 4.0 + 5.0) * DATA[0] + 1.0
    np.testing.assert_allclose(
        reading.center_losses["y"], -norm(mean, 1.0).logpdf(DATA[1]), rtol=1e-5
    )


# --- names --------------------------------------------------------------------------------------

NAMES = ["w", "w/a", "w.a", "net/a.b", "a b", "π", "llc", "llc_on", "chain", "draw", "N", "outer/N"]
PLATES = {"N": 2, "outer/N": 3, "a b": 2, "w": 3, "llc": 2, "chain": 3, "one": 1}
"""Sizes of plates by name."""


class Reading:
    """What ``sites_to_store`` reads of a model: its sites and their values."""

    deterministic = ()

    def __init__(self, center):
        self.program = self
        self.parameters = tuple(center)
        self.center = center


@st.composite
def named_sites(draw):
    """Values ``[chain, draw, ...]`` by site, some pytrees, and their plates."""
    center, plates = {}, {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)):
        own = draw(st.lists(st.sampled_from(sorted(PLATES)), max_size=2, unique=True))
        sizes = [PLATES[plate] for plate in reversed(own)]
        leaf = RNG.normal(size=(2, 5, *draw(st.sampled_from([(), (3,), (1,)])), *sizes))
        is_tree = not own and draw(st.integers(0, 2)) == 0
        center[name] = {"a": leaf, "b": -leaf} if is_tree else leaf
        plates[name] = dict(zip((-1, -2), own, strict=False))
    return center, plates


@given(named_sites())
@settings(parent=EXAMPLES, max_examples=200)
def test_names_are_refused_or_label_every_value(case):
    center, plates = case
    flat = named_leaves(center)
    taken = ["llc", "llc_on", "chain", "draw"]
    labels = list(map(variable_name, {*flat}))
    several = sum(len(jax.tree.leaves(tree)) for tree in center.values()) > len(
        {variable_name(name) for name in flat}
    )
    is_bad = several or len(set(labels)) < len(labels) or set(labels) & set(taken)
    try:
        names = sites_to_store(Reading(center), True)
    except ValueError:  # whose message has its own test
        assert is_bad
        return
    assert not is_bad
    data = labelled(
        named_leaves({name: center[name] for name in names}),
        lead=("chain", "draw"),
        axes=plates,
    )
    assert set(data.data_vars) == {variable_name(name) for name in flat}
    assert not [name for name in (*data.variables, *data.dims) if "/" in name]
    for name, value in flat.items():
        variable = data[variable_name(name)]
        np.testing.assert_array_equal(variable, value)
        own, dims = plates.get(name, {}), []
        for axis in range(2 - value.ndim, 0):
            number = len([dim for dim in dims if "_dim_" in dim]) if NEW else len(dims)
            dims.append(variable_name(own.get(axis, f"{name}_dim_{number}")))
        assert variable.dims[:2] == ("chain", "draw")
        assert len({*variable.dims}) == value.ndim
        # A name that is taken gets a number behind it.
        for found, wanted in zip(variable.dims[2:], dims, strict=True):
            assert re.fullmatch(re.escape(wanted) + r"(_\d+)?", found)
