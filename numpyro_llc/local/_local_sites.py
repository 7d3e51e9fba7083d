"""The handler that turns a model's sites into those of the localized, tempered model."""

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.distribution import Unit
from numpyro.primitives import Messenger

from numpyro_llc.local._parts import is_free_of
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import (
    ModelReading,
    NegativeLoss,
    PyTree,
    Site,
    center_distributions,
    leaf_name,
    site_divergence,
)


class LocalSites(Messenger):
    """Gaussians for priors, a tempered likelihood; fixed sites lose their density."""

    def __init__(self, reading: ModelReading, target: LocalTarget) -> None:
        super().__init__()
        self.reading = reading
        self.localization = target.localization
        self.is_free = is_free_of(reading.center, target.fixed)
        self.temper = handlers.scale(scale=target.inverse_temperature)
        self.truth = target.truth
        if target.truth is not None:
            self.there = center_distributions(target.program, target.truth, target.arrays)
        self.log_dets = {f"_{site}_log_det" for site in reading.center}

    def process_message(self, msg: Site) -> None:
        name = msg.get("name")
        if msg["type"] == "param" and name in self.reading.center:
            msg["value"] = self._lift(name, msg["kwargs"].get("constraint"))
            msg["stop"] = True  # Kernels hold a param site fixed; its sample sites replace it.
        elif msg["type"] != "sample":
            return
        elif name in self.reading.center:
            is_free = self.is_free[name]
            msg["fn"] = self._gaussian(name, msg["fn"]) if is_free else msg["fn"].mask(False)
            msg["scale"] = None
        elif name in self.log_dets:  # NumPyro's Jacobian factor: not the user's to scale either.
            msg["scale"] = None
        elif name in self.reading.center_losses:
            if self.truth is not None:
                msg["fn"] = self._diverging(msg)
            self.temper.process_message(msg)
        elif name in self.reading.program.prior_factors:
            msg["fn"] = Unit(jnp.zeros(()))

    def _diverging(self, msg: Site) -> dist.Distribution:
        """In the place of the likelihood, what has minus the divergence for its log density."""
        assert self.truth is not None
        name = msg["name"]
        unscaled = {**msg, "scale": None}  # NumPyro scales the log density
        draws = self.truth.draws.get(name)
        truth = self.there(name, msg["fn"])
        loss = site_divergence(truth, unscaled, None if draws is None else draws.values)
        return NegativeLoss(loss, event_shape=msg["fn"].event_shape)

    def _gaussian(self, name: str, prior: dist.Distribution) -> dist.Distribution:
        transform = biject_to(prior.support)
        event_dim = transform.domain.event_dim + prior.event_dim - transform.codomain.event_dim
        scale = self.localization[name] ** -0.5
        base = dist.Normal(self.reading.center[name], scale).to_event(event_dim)
        return dist.TransformedDistribution(base, transform)

    def _lift(self, name: str, constraint: constraints.Constraint | None) -> PyTree:
        """Put sample sites in place of a param site: one, or one for each leaf of its pytree."""
        center = self.reading.center[name]
        paths, treedef = jax.tree_util.tree_flatten_with_path(center)
        values = []
        for (path, leaf), is_free in zip(paths, jax.tree.leaves(self.is_free[name]), strict=True):
            if not is_free:
                values.append(leaf if constraint is None else biject_to(constraint)(leaf))
                continue
            # A site of the param's own name comes back to `process_message`, which is harmless.
            prior = dist.Normal(leaf, self.localization[name] ** -0.5).to_event(jnp.ndim(leaf))
            if constraint is not None:
                prior = dist.TransformedDistribution(prior, biject_to(constraint))
            values.append(numpyro.sample(leaf_name(name, path), prior))
        return jax.tree.unflatten(treedef, values)
