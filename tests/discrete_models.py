"""Models with discrete latent sites, and the loss of each datum by hand, in NumPy and float64."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.stats as st
from numpyro.contrib.control_flow import scan
from scipy.special import logsumexp

_rng = np.random.default_rng(0)


def states():
    """The mark of a discrete site; a dict for each, since NumPyro writes into it."""
    return {"enumerate": "parallel"}


class Case(NamedTuple):
    """A model, its data, a point, and the loss of each datum as a function of that point.

    `rows` says whether data are rows that a batch can take; `name` is that of the loss, and
    `is_numpyros` whether NumPyro's own density, which takes long to compile, is looked at too. It
    takes the states of every site from zero, and weighs states by a scale.
    """

    model: Callable
    args: tuple
    center: dict
    oracle: Callable
    num_data: int | None = None
    rows: bool = True
    name: str = "y"
    is_numpyros: bool = True


def _weights(center, name="weights"):
    return np.log(np.asarray(center[name], float))


# --- mixtures


def mixture(y):
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("data", y.shape[0]):
        z = numpyro.sample("z", dist.Categorical(weights), infer=states())
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def mixture_by_hand(y):
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("data", y.shape[0]):
        parts = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, 1.0))
        numpyro.sample("y", parts, obs=y)


def _mixture_losses(c, y):
    return -logsumexp(_weights(c) + st.norm.logpdf(y[:, None], c["means"], 1.0), axis=1)


def one_component(y):
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([1]).to_event(1))
    with numpyro.plate("data", y.shape[0]) as rows:
        z = numpyro.sample("z", dist.Categorical(jnp.ones(1)), infer=states())
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y[rows])


def zero_inflated(y):
    present = numpyro.sample("present", dist.Beta(1.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("data", y.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(present), infer=states())
        numpyro.sample("y", dist.Poisson(jnp.where(z == 1, rate, 1e-6)), obs=y)


def _zero_inflated_losses(c, y):
    p = c["present"]
    here, gone = st.poisson.logpmf(y, c["rate"]), st.poisson.logpmf(y, 1e-6)
    return -np.logaddexp(np.log(p) + here, np.log1p(-p) + gone)


def switching_regression(x, y):
    slopes = numpyro.sample("slopes", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    gate = numpyro.sample("gate", dist.Normal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("data", x.shape[0]) as rows:
        z = numpyro.sample("z", dist.Bernoulli(logits=gate * x[rows]), infer=states())
        numpyro.sample("y", dist.Normal(slopes[z] * x[rows], noise), obs=y[rows])


def _switching_losses(c, x, y):
    parts = st.norm.logpdf(y[:, None], x[:, None] * c["slopes"], c["noise"])
    logit = c["gate"] * x
    weights = -np.logaddexp(0.0, np.stack([logit, -logit], 1))
    return -logsumexp(weights + parts, axis=1)


def latent_classes(answers):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    chances = numpyro.sample("chances", dist.Beta(1.0, 1.0).expand([2, 3]).to_event(2))
    with numpyro.plate("people", answers.shape[0]):
        z = numpyro.sample("z", dist.Categorical(weights), infer=states())
        numpyro.sample("y", dist.Bernoulli(chances[z]).to_event(1), obs=answers)


def _latent_class_losses(c, answers):
    chances = np.asarray(c["chances"])
    parts = np.where(answers[:, None], np.log(chances), np.log1p(-chances)).sum(-1)
    return -logsumexp(_weights(c) + parts, axis=1)


def two_views(x, y):
    """Two observed sites of one discrete site: one loss for both."""
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2, 2]).to_event(2))
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(0.4), infer=states())
        numpyro.sample("x", dist.Normal(means[0][z], 1.0), obs=x)
        numpyro.sample("y", dist.Normal(means[1][z], 1.0), obs=y)


def _two_view_losses(c, x, y):
    one, two = (st.norm.logpdf(v[:, None], m) for v, m in zip((x, y), c["means"], strict=True))
    return -logsumexp(np.log([0.6, 0.4]) + one + two, axis=1)


# --- plates in plates


def annotation(votes):
    """Dawid and Skene: items of unknown class, annotators with a table of errors each."""
    annotators = votes.shape[1]
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("annotators", annotators), numpyro.plate("classes", 2):
        table = numpyro.sample("table", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("items", votes.shape[0], dim=-2):
        c = numpyro.sample("c", dist.Categorical(prevalence), infer=states())
        with numpyro.plate("votes", annotators, dim=-1) as who:
            numpyro.sample("y", dist.Categorical(table[c, who]), obs=votes)


def _annotation_losses(c, votes):
    table = np.log(np.asarray(c["table"]))  # class, annotator, vote
    who = np.arange(votes.shape[1])
    parts = np.stack([table[k][who, votes].sum(1) for k in range(2)], axis=1)
    return -logsumexp(_weights(c, "prevalence") + parts, axis=1)


def groups(y):
    """A discrete site for each group, and one for each member that depends on it."""
    shift = numpyro.sample("shift", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    mixing = numpyro.sample("mixing", dist.Beta(1.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("groups", y.shape[0], dim=-2):
        kind = numpyro.sample("kind", dist.Bernoulli(0.3), infer=states())
        with numpyro.plate("members", y.shape[1], dim=-1):
            odd = numpyro.sample("odd", dist.Bernoulli(mixing[kind]), infer=states())
            numpyro.sample("y", dist.Normal(shift[kind] + 2.0 * odd, 1.0), obs=y)


def _group_losses(c, y):
    parts = []
    for kind, chance in enumerate((0.7, 0.3)):
        even, odd = (st.norm.logpdf(y, c["shift"][kind] + 2.0 * k) for k in range(2))
        p = c["mixing"][kind]
        members = np.logaddexp(np.log1p(-p) + even, np.log(p) + odd)
        parts.append(np.log(chance) + members.sum(1))
    return -logsumexp(parts, axis=0)


def shared_by_group(group, y):
    """The data of a group have one discrete site; data and groups are told apart by an index."""
    means = numpyro.sample("means", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("groups", y.shape[0]):
        kind = numpyro.sample("kind", dist.Categorical(jnp.array([0.25, 0.75])), infer=states())
        numpyro.sample("y", dist.Normal(means[kind][..., None] + group, 1.0).to_event(1), obs=y)


def _shared_losses(c, group, y):
    parts = [st.norm.logpdf(y, c["means"][k] + group).sum(1) for k in range(2)]
    return -logsumexp(np.log([0.25, 0.75])[:, None] + parts, axis=0)


# --- sequences


def hidden_markov(y):
    """Sequences of one hidden Markov model: a sequence is a datum."""
    moves = numpyro.sample("moves", dist.Dirichlet(jnp.ones((2, 2))).to_event(1))
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))

    def step(state, now):
        with numpyro.plate("sequences", y.shape[0]):
            state = numpyro.sample("state", dist.Categorical(moves[state]), infer=states())
            numpyro.sample("y", dist.Normal(means[state], 1.0), obs=now)
        return state, None

    scan(step, jnp.zeros(y.shape[0], int), y.T)


def forward(start, moves, emissions):
    """Log likelihood of one sequence: emissions[t, state], the first move is from `start`."""
    alpha = np.log(moves[start]) + emissions[0]
    for emission in emissions[1:]:
        alpha = logsumexp(alpha[:, None] + np.log(moves), axis=0) + emission
    return logsumexp(alpha)


def _hidden_markov_losses(c, y):
    moves, means = np.asarray(c["moves"]), np.asarray(c["means"])
    return -np.array([forward(0, moves, st.norm.logpdf(row[:, None], means)) for row in y])


def capture_recapture(captures, masks_states=False):
    """Cormack, Jolly and Seber: animals survive, and are caught while alive.

    NumPyro's example masks the states too: that of the first capture is then either, at equal odds.
    """
    survival = numpyro.sample("survival", dist.Uniform(0.0, 1.0))
    recapture = numpyro.sample("recapture", dist.Uniform(0.0, 1.0))

    def year(carry, caught):
        known, alive = carry
        with numpyro.plate("animals", captures.shape[0], dim=-1):
            chance = known * survival * alive + (1 - known)
            with numpyro.handlers.mask(mask=known | (not masks_states)):
                alive = numpyro.sample("alive", dist.Bernoulli(chance), infer=states())
            with numpyro.handlers.mask(mask=known):
                numpyro.sample("y", dist.Bernoulli(recapture * alive), obs=caught)
        return (known | caught.astype(bool), alive), None

    start = (captures[:, 0].astype(bool), jnp.ones(captures.shape[0], int))
    scan(year, start, captures.T[1:])


def _capture_losses(c, captures, masks_states=False):
    survival, recapture = c["survival"], c["recapture"]

    def loss(history):
        if not history[:-1].any():
            return 0.0
        first, last = np.flatnonzero(history)[[0, -1]]
        seen = history[first + 1 : last + 1]
        chance = np.prod(survival * np.where(seen, recapture, 1 - recapture))
        never = 1.0
        for _ in range(len(history) - 1 - last):
            never = 1 - survival + survival * (1 - recapture) * never
        if masks_states and first > 0:
            return -np.log((chance * never + (first == last)) / 2)
        return -np.log(chance * never)

    return np.array([loss(history) for history in captures])


def change_point(y):
    """One change for the whole series, which is one datum. States do not begin at zero."""
    rates = numpyro.sample("rates", dist.Gamma(2.0, 0.5).expand([2]).to_event(1))
    change = numpyro.sample("change", dist.DiscreteUniform(3, y.shape[0] - 2), infer=states())
    with numpyro.plate("days", y.shape[0]) as day:
        numpyro.sample("y", dist.Poisson(jnp.where(day < change, rates[0], rates[1])), obs=y)


def _change_losses(c, y):
    changes = np.arange(3, len(y) - 1)
    day = np.arange(len(y))
    rates = np.where(day < changes[:, None], *c["rates"])
    return -logsumexp(st.poisson.logpmf(y, rates).sum(1) - np.log(len(changes)))


def two_steps_back(y):
    """A chain whose next state depends on the last two; a sequence is a datum."""
    moves = numpyro.sample("moves", dist.Dirichlet(jnp.ones((2, 2, 2))).to_event(2))
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))

    def step(carry, now):
        before, last = carry
        with numpyro.plate("sequences", y.shape[0]):
            state = numpyro.sample("state", dist.Categorical(moves[before, last]), infer=states())
            numpyro.sample("y", dist.Normal(means[state], 1.0), obs=now)
        return (last, state), None

    zero = jnp.zeros(y.shape[0], int)
    scan(step, (zero, zero), y.T, history=2)


def _two_step_losses(c, y):
    moves, means = np.asarray(c["moves"]), np.asarray(c["means"])

    def likelihood(row):
        total = 0.0
        for path in itertools.product(range(2), repeat=len(row)):
            states = (0, 0, *path)
            chances = [moves[states[t], states[t + 1], states[t + 2]] for t in range(len(row))]
            total += np.prod(chances) * np.exp(st.norm.logpdf(row, means[list(path)]).sum())
        return total

    return -np.log([likelihood(row) for row in y])


def unrolled(y):
    """A hidden Markov model as a Python loop over `markov`."""
    from numpyro.contrib.funsor import markov

    moves = numpyro.sample("moves", dist.Dirichlet(jnp.ones((2, 2))).to_event(1))
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    state = 0
    for t in markov(range(y.shape[1])):
        with numpyro.plate("sequences", y.shape[0]):
            state = numpyro.sample(f"state_{t}", dist.Categorical(moves[state]), infer=states())
            numpyro.sample(f"y_{t}", dist.Normal(means[state], 1.0), obs=y[:, t])


# --- a discrete site beside the parameters


def spike_and_slab(x, y):
    """The prior of a slope depends on a discrete site that the likelihood depends on too."""
    kind = numpyro.sample("kind", dist.Bernoulli(0.3), infer=states())
    slope = numpyro.sample("slope", dist.Normal(0.0, jnp.where(kind == 1, 2.0, 0.1)))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x + 0.5 * kind, 1.0), obs=y)


def _spike_losses(c, x, y):
    prior = np.log([0.7, 0.3]) + st.norm.logpdf(c["slope"], 0.0, [0.1, 2.0])
    data = [st.norm.logpdf(y, c["slope"] * x + 0.5 * kind).sum() for kind in range(2)]
    return -logsumexp(prior + data) + logsumexp(prior)


def weighted_classes(answers, weights):
    """A scale for each datum, over all its sites, weighs its loss."""
    chances = numpyro.sample("chances", dist.Beta(1.0, 1.0).expand([2, 3]).to_event(2))
    with numpyro.plate("people", answers.shape[0]), numpyro.handlers.scale(scale=weights):
        z = numpyro.sample("z", dist.Bernoulli(0.5), infer=states())
        numpyro.sample("y", dist.Bernoulli(chances[z]).to_event(1), obs=answers)


_Y = _rng.normal([-1.0, 2.0], size=(15, 2)).reshape(-1)
_X = _rng.normal(size=30)
_SERIES = _rng.normal(size=(8, 5)) + np.array([-1.0, -1.0, 1.5, 1.5, 1.5])
_ANSWERS = _rng.integers(0, 2, size=(30, 3)).astype(float)
_CAPTURES = (_rng.random((20, 4)) < 0.4).astype(int)
_CAPTURES[0] = 0
_ALIVE = {"survival": np.array(0.8), "recapture": np.array(0.45)}
_MOVES = np.array([[0.8, 0.2], [0.3, 0.7]])
_MIXTURE = {"means": np.array([-1.2, 1.7]), "weights": np.array([0.4, 0.6])}
_MARKOV = {"moves": _MOVES, "means": np.array([-1.0, 1.4])}
_CLASSES = {"chances": np.array([[0.2, 0.5, 0.7], [0.6, 0.4, 0.3]])}

CASES = {
    "mixture": Case(mixture, (_Y,), _MIXTURE, _mixture_losses),
    "mixture of one component": Case(
        one_component,
        (_Y,),
        {"means": np.array([0.3])},
        lambda c, y: -st.norm.logpdf(y, c["means"][0]),
    ),
    "zero-inflated counts": Case(
        zero_inflated,
        (_rng.poisson(2.0, 30) * (_rng.random(30) < 0.6),),
        {"present": np.array(0.55), "rate": np.array(1.8)},
        _zero_inflated_losses,
    ),
    "switching regression": Case(
        switching_regression,
        (_X, _X * np.where(_rng.random(30) < 0.5, 1.0, -1.5) + 0.3 * _rng.normal(size=30)),
        {"slopes": np.array([-1.4, 1.1]), "gate": np.array(0.3), "noise": np.array(0.5)},
        _switching_losses,
    ),
    "latent classes": Case(
        latent_classes,
        (_ANSWERS,),
        {"weights": np.array([0.3, 0.7]), **_CLASSES},
        _latent_class_losses,
    ),
    "two observed sites of one state": Case(
        two_views,
        (_X, _Y),
        {"means": np.array([[0.5, -0.4], [-1.0, 1.5]])},
        _two_view_losses,
        name="x+y",
    ),
    "annotators": Case(
        annotation,
        (_rng.integers(0, 3, size=(25, 4)),),
        {
            "prevalence": np.array([0.35, 0.65]),
            "table": _rng.dirichlet(np.ones(3), size=(2, 4)),
        },
        _annotation_losses,
    ),
    "groups with members": Case(
        groups,
        (_rng.normal(size=(12, 4)) + _rng.integers(0, 3, size=(12, 1)),),
        {"shift": np.array([-0.5, 1.0]), "mixing": np.array([0.3, 0.6])},
        _group_losses,
    ),
    "one state for a group": Case(
        shared_by_group,
        (np.array([0.0, 0.5, -0.5]), _rng.normal(size=(10, 3))),
        {"means": np.array([-0.7, 0.9])},
        _shared_losses,
    ),
    "hidden Markov model": Case(hidden_markov, (_SERIES,), _MARKOV, _hidden_markov_losses),
    "capture and recapture": Case(
        capture_recapture,
        (_CAPTURES,),
        _ALIVE,
        _capture_losses,
        is_numpyros=False,
    ),
    "capture with masked states": Case(
        capture_recapture,
        (_CAPTURES, True),
        _ALIVE,
        _capture_losses,
    ),
    "change point": Case(
        change_point,
        (np.concatenate([_rng.poisson(2.0, 12), _rng.poisson(6.0, 8)]),),
        {"rates": np.array([2.2, 5.5])},
        _change_losses,
        num_data=20,
        rows=False,
        is_numpyros=False,
    ),
    "two steps back": Case(
        two_steps_back,
        (_SERIES,),
        {
            "moves": np.array([[[0.8, 0.2], [0.4, 0.6]], [[0.7, 0.3], [0.1, 0.9]]]),
            "means": np.array([-1.0, 1.4]),
        },
        _two_step_losses,
    ),
    "loop over markov": Case(
        unrolled, (_SERIES,), _MARKOV, _hidden_markov_losses, name="y_0+4 more"
    ),
    "spike and slab": Case(
        spike_and_slab,
        (_X, _Y),
        {"slope": np.array(0.4)},
        _spike_losses,
        num_data=30,
        rows=False,
    ),
    "weighted latent classes": Case(
        weighted_classes,
        (_ANSWERS, np.linspace(0.5, 2.0, 30)),
        _CLASSES,
        lambda c, answers, w: w * _latent_class_losses({**c, "weights": [0.5, 0.5]}, answers),
        is_numpyros=False,
    ),
}
