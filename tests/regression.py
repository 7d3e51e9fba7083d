"""A linear regression on noisy data, and its exact λ̂."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

_rng = np.random.default_rng(0)
X = _rng.normal(size=(500, 5)) * [2.0, 1.0, 0.5, 0.2, 0.05]
Y = X @ np.ones(5) + _rng.normal(size=500)
OLS = np.linalg.lstsq(X, Y, rcond=None)[0]
TRUTH = np.ones(5)


def model(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(jnp.asarray(x) @ w, 1.0), obs=y)


def exact(center, gamma, *, x=X, beta=None):
    """E[llc] of a Gaussian linear model: with A = βH + Γ, mean shift m = -A⁻¹ β g at the centre.

    λ̂ = ½ tr(βH A⁻¹) + β (g·m + ½ m'Hm); Γ = diag(γ). Independent of the package.
    """
    beta = 1 / np.log(len(x)) if beta is None else beta
    hessian = x.T @ x
    gradient = hessian @ (center - np.linalg.lstsq(x, Y, rcond=None)[0])
    precision = beta * hessian + np.diag(np.broadcast_to(gamma, len(center)))
    shift = -np.linalg.solve(precision, beta * gradient)
    spread = 0.5 * np.trace(beta * hessian @ np.linalg.inv(precision))
    return spread + beta * (gradient @ shift + 0.5 * shift @ hessian @ shift)
