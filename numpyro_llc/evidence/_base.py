"""Where a ladder begins: its density, draws at β = 0, the prior at draws, starts of the chains."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.initialization import init_to_sample

from numpyro_llc.local import LocalTarget, PosteriorTarget
from numpyro_llc.models import Parameters, draw_starts
from numpyro_llc.sampling import Plan

_PRIOR_DRAW = init_to_sample()


def target_of_prior(plan: Plan, prior: str) -> LocalTarget:
    """The density of a rung: under the Gaussian ("local"), or under the model's prior ("model")."""
    if prior == "local":
        return plan.target
    parts = {field.name: getattr(plan.target, field.name) for field in fields(LocalTarget)}
    return PosteriorTarget(**{**parts, "program": plan.reading.keyed_by_prior()})


def base_draws(plan: Plan, target: LocalTarget, rng_key: jax.Array) -> Parameters:
    """Independent draws ``[chain, draw, ...]`` at β = 0."""
    schedule = plan.schedule
    shape = (schedule.num_chains, schedule.num_samples or 1)
    if isinstance(target, PosteriorTarget):
        keys = jax.random.split(rng_key, shape[0] * shape[1])
        drawn = draw_starts(target.program, _PRIOR_DRAW, target.arrays, keys)
        return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), drawn)
    keys = jax.random.split(rng_key, len(target.center))

    def around(key: jax.Array, name: str) -> jax.Array | Mapping:
        leaves, form = jax.tree.flatten(target.center[name])
        scale = jax.lax.rsqrt(target.localization[name])
        own = jax.random.split(key, len(leaves))
        drawn = [
            leaf + scale * jax.random.normal(k, (*shape, *leaf.shape), leaf.dtype)
            for k, leaf in zip(own, leaves, strict=True)
        ]
        return jax.tree.unflatten(form, drawn)

    return {name: around(key, name) for key, name in zip(keys, target.center, strict=True)}


def starts_of_rungs(
    plan: Plan, rungs: np.ndarray, key_check: jax.Array, key_starts: jax.Array
) -> Parameters:
    """Starts of all rungs around the centre, ``[rung * chain, ...]``."""
    curvature = plan.curvature(key_check)
    scalar = partial(jnp.asarray, dtype=jnp.result_type(float))
    of_rungs = [
        replace(plan, target=replace(plan.target, inverse_temperature=scalar(beta))).starts(
            curvature, jax.random.fold_in(key_starts, k)
        )
        for k, beta in enumerate(rungs)
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *of_rungs)


def potentials(plan: Plan, positions: Parameters) -> dict[str, np.ndarray]:
    """``penalty`` and ``prior_potential``, -log of Gaussian and prior, of draws ``[chain, draw]``.

    The penalty is without the constant that :func:`log_normalizer` gives.
    """
    found = _potentials(target_of_prior(plan, "local"), target_of_prior(plan, "model"), positions)
    names = ("penalty", "prior_potential")
    return {k: np.asarray(v, np.float64) for k, v in zip(names, found, strict=True)}


@jax.jit
def _potentials(
    local: LocalTarget, model: LocalTarget, z: Parameters
) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(jax.vmap(lambda one: (local.penalty(one), model.penalty(one))))(z)


def log_normalizer(target: LocalTarget) -> float:
    """Log density of the Gaussian at its centre, ``½ Σ log(γ/2π)``."""
    size = {name: sum(map(np.size, jax.tree.leaves(z))) for name, z in target.center.items()}
    return float(
        sum(0.5 * size[k] * np.log(float(g) / (2 * np.pi)) for k, g in target.localization.items())
    )
