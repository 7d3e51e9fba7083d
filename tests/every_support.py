"""A model with every kind of support, plates, scan, an improper prior and a deterministic site."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

CENTER = {
    "vector": np.array([0.1, 0.2]),
    "positive": 0.5,
    "below": 0.2,
    "simplex": np.array([0.2, 0.3, 0.5]),
    "cholesky": np.array([[1, 0, 0], [0.6, 0.8, 0], [0.0, 0.6, 0.8]]),
    "ordered": np.array([0.1, 0.2, 0.5]),
    "grouped": np.full(4, 0.3),
    "grouped_vector": np.full((4, 2), 0.1),
    "improper": np.array([0.3, 0.4]),
    "scanned": np.array([0.1, 0.2, 0.3]),
    "bounded": 1.5,
}


def model(x, y):
    vector = numpyro.sample("vector", dist.Normal(0, 1).expand([2]).to_event(1))
    positive = numpyro.sample("positive", dist.HalfNormal(1))
    below = numpyro.sample("below", dist.Uniform(0, positive))
    simplex = numpyro.sample("simplex", dist.Dirichlet(jnp.ones(3)))
    cholesky = numpyro.sample("cholesky", dist.LKJCholesky(3))
    increasing = dist.transforms.OrderedTransform()
    base = dist.Normal(0, 1).expand([3]).to_event(1)
    ordered = numpyro.sample("ordered", dist.TransformedDistribution(base, increasing))
    bounded = numpyro.sample("bounded", dist.TruncatedNormal(1.0, 1.0, low=1.0))
    with numpyro.plate("groups", 4):
        grouped = numpyro.sample("grouped", dist.Gamma(2.0, 1.0))
        pairs = numpyro.sample("grouped_vector", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
    support = dist.constraints.positive
    improper = numpyro.sample("improper", dist.ImproperUniform(support, (), (2,)))

    def step(level, now):
        rise = numpyro.sample("scanned", dist.HalfNormal(1.0))
        numpyro.sample("path", dist.Normal(level + rise * now, 1.0), obs=now)
        return level + rise, None

    scan(step, 0.0, x[:3])
    parts = (vector, simplex[:1], cholesky[2], ordered, grouped, pairs, improper)
    mean = numpyro.deterministic("mean", bounded + sum(jnp.sum(part) for part in parts))
    with numpyro.plate("rows", x.shape[0]) as rows:
        numpyro.sample("y", dist.Normal(mean + below * x[rows], positive), obs=y[rows])
