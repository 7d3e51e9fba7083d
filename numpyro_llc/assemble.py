"""Put a run's draws, the model's data and the findings together as inference data."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from numpyro_llc.automatic import Finished
from numpyro_llc.center import total_loss
from numpyro_llc.curvature import Curvature
from numpyro_llc.diagnosis import findings_of, text_of
from numpyro_llc.diagnostics import BELOW_CENTER
from numpyro_llc.errors import LLCWarning, NonFiniteLossError
from numpyro_llc.estimators import data_error
from numpyro_llc.evaluation import Evaluation, excess_losses
from numpyro_llc.inference_data import (
    attributes,
    flatten_sites,
    inference_data,
    labelled,
    monte_carlo,
    variable_name,
)
from numpyro_llc.models import ModelReading, Parameters, constrain
from numpyro_llc.points import LOWEST_POINT, point_dataset
from numpyro_llc.problem import Problem
from numpyro_llc.sampling import ELSEWHERE, Draws
from numpyro_llc.schedule import Until
from numpyro_llc.target import LocalTarget

_CHAIN_DRAW = ("chain", "draw")


def curvature_settings(curvature: Curvature) -> dict[str, float]:
    """What the result keeps of the centre's check: what was measured."""
    gradient = {"center_gradient_norm": curvature.gradient_norm}
    if curvature.hessian is None and np.isnan(curvature.largest):
        return gradient
    return {
        **gradient,
        "center_smallest_eigenvalue": curvature.smallest,
        "center_largest_eigenvalue": curvature.largest,
        "center_shift": curvature.newton_shift,
        "center_expected_llc": curvature.expected_llc,
    }


def sites_to_store(reading: ModelReading, store_sites: bool | Sequence[str]) -> tuple[str, ...]:
    """Resolve `store_sites` to names of parameter and deterministic sites, all different."""
    if isinstance(store_sites, bool):
        names = reading.program.parameters if store_sites else ()
    elif isinstance(store_sites, Sequence):
        names = (store_sites,) if isinstance(store_sites, str) else tuple(store_sites)
    else:
        raise TypeError(
            f"`store_sites` must be True, False or names of sites; got {store_sites!r}."
        )
    known = (*reading.program.parameters, *reading.deterministic)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"`store_sites` names {unknown}; the model has {list(known)}. Choose among them."
        )
    _check_labels(reading, names)
    return names


def _check_labels(reading: ModelReading, names: Sequence[str]) -> None:
    plates = {name for axes in reading.plate_axes.values() for name in axes.values()}
    taken = ["llc", "llc_on", *_CHAIN_DRAW, *map(variable_name, sorted(plates))]
    leaves = [leaf for name in names for leaf in flatten_sites({name: reading.center.get(name, 0)})]
    for name in (*sorted(plates & {"llc", *_CHAIN_DRAW}), *leaves):
        if variable_name(name) in taken:
            raise ValueError(
                f"The name {name!r} is taken in the result (`llc` is λ̂'s, `chain` and `draw` are "
                "axes, and '/' becomes '.'). Rename it in the model, or leave the site out with "
                "`store_sites`."
            )
        taken.append(variable_name(name))


@partial(jax.jit, static_argnums=0)
def _constrain(names: tuple[str, ...], z: Parameters, target: LocalTarget) -> Any:
    def one(z: Parameters) -> dict[str, Any]:
        return target.program.constrain(target.whole(z), target.arrays, names)

    return jax.vmap(jax.vmap(one))(z)


@jax.jit
def _evaluate(target: LocalTarget, z: Parameters) -> tuple[Evaluation, dict[str, jax.Array]]:
    def one_draw(chains: Parameters) -> tuple[Evaluation, dict[str, jax.Array]]:
        return excess_losses(target, chains, None), jax.vmap(target.displacement)(chains)

    by_draw = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), z)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), jax.lax.map(one_draw, by_draw))


def evaluated(target: LocalTarget, positions: Parameters, statistics: dict[str, Any]) -> Draws:
    """Unconstrained draws ``[chain, draw, ...]`` with their losses and distances."""
    evaluation, displacement = jax.tree.map(np.asarray, _evaluate(target, positions))
    excess, by_part, contrasts = (np.asarray(part, np.float64) for part in evaluation)
    place = np.unravel_index(np.nanargmin(excess), excess.shape)
    lowest = float(excess[place]), jax.tree.map(lambda leaf: leaf[place], positions)
    return Draws(excess, by_part, contrasts, {**displacement, **statistics}, positions, lowest)


@jax.jit
def _losses_of_chain_draws(target: LocalTarget, z: Parameters) -> dict[str, jax.Array]:
    return jax.vmap(target.losses)(z)


def _log_likelihood(target: LocalTarget, positions: Parameters) -> dict[str, np.ndarray]:
    """``log p(x_i | z_t)``, float32 ``[chain, draw, n]``, evaluated a draw at a time."""
    num_draws = jax.tree.leaves(positions)[0].shape[1]
    parts = []
    for draw in range(num_draws):
        z = jax.tree.map(lambda leaf, t=draw: leaf[:, t], positions)
        losses = _losses_of_chain_draws(target, z)
        parts.append({name: -np.asarray(loss) for name, loss in losses.items()})
    return {name: np.stack([part[name] for part in parts], axis=1) for name in parts[0]}


def run_settings(problem: Problem, finished: Finished) -> dict[str, Any]:
    """What the result keeps of how a run went."""
    beta = float(problem.target.inverse_temperature)
    return {
        "kernel": problem.kernel,
        "chain_method": problem.schedule.chain_method,
        "num_warmup": finished.num_warmup,
        "tuning_steps": finished.num_warmup,
        "thinning": finished.thinning,
        "num_steps": finished.num_steps,
        "sampling_time": finished.seconds,
        "ended_by": finished.ended_by,
        "interrupted": finished.ended_by == "interrupt",
        "ended_at_limit": finished.ended_at_limit,
        "relative_error_wanted": (problem.schedule.until or Until()).relative_error,
        "evaluation_rows": finished.evaluation_rows,
        "evaluation_error": finished.evaluation_error * beta,
    }


def assemble(
    reading: ModelReading,
    target: LocalTarget,
    draws: Draws,
    num_data: int,
    names: tuple[str, ...],
    log_likelihood: bool,
    settings: dict[str, Any],
) -> Any:
    """Inference data of a run; raises for non-finite draws, warns of what is doubtful."""
    beta = float(target.inverse_temperature)
    center_loss = total_loss(reading.center_losses)
    sites = _constrain(names, draws.positions, target) if names else {}
    statistics = {"loss": center_loss + draws.excess_loss, "excess_loss": draws.excess_loss}
    others, own = _by_prefix(draws.statistics, ELSEWHERE)
    label = partial(labelled, plate_axes=reading.plate_axes)
    groups = {
        "posterior": label(
            {"llc": beta * draws.excess_loss, **flatten_sites(sites)}, lead=_CHAIN_DRAW
        ).assign(_llc_on(beta, others)),
        "sample_stats": labelled({**statistics, **own}, lead=_CHAIN_DRAW),
        "observed_data": label(reading.observed),
        "constant_data": labelled(_constants(reading)),
    }
    if log_likelihood:
        groups["log_likelihood"] = labelled(
            _log_likelihood(target, draws.positions),
            lead=_CHAIN_DRAW,
            plate_axes={name: axes.names for name, axes in reading.data_axes.items()},
        )
    groups |= _lowest_group(reading, target, draws.lowest)
    localization = {name: float(gamma) for name, gamma in target.localization.items()}
    same = len(set(localization.values())) == 1
    settings = {
        "num_data": num_data,
        "num_parameters": target.dimension,
        "inverse_temperature": beta,
        "localization": next(iter(localization.values())) if same else localization,
        "center_loss": center_loss,
        **settings,
    }
    if not np.all(np.isfinite(draws.excess_loss)):
        raise _non_finite(groups, settings, draws)
    # A row that stands for several data has the variance of one, so many times.
    rows = max(np.size(losses) for losses in reading.center_losses.values())
    scale = beta * np.sqrt(rows / num_data)
    settings["data_error"] = data_error(beta * draws.excess_loss, scale * draws.contrasts)
    idata, findings = _with_findings(groups, settings)
    if findings:
        warnings.warn(" ".join(map(text_of, findings)), LLCWarning, stacklevel=3)
    return idata


def _by_prefix(arrays: dict[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those whose names begin so, without it, and the others."""
    found = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return found, {k: v for k, v in arrays.items() if not k.startswith(prefix)}


def _llc_on(beta: float, others: dict[str, np.ndarray]) -> dict[str, xr.DataArray]:
    """The variable ``llc_on[chain, draw, data]``, if there are other data."""
    if not others:
        return {}
    draws = beta * np.stack([array.astype(np.float64) for array in others.values()], axis=-1)
    dims = (*_CHAIN_DRAW, "data")
    return {"llc_on": xr.DataArray(draws, dims=dims, coords={"data": list(others)})}


def _lowest_group(
    reading: ModelReading, target: LocalTarget, lowest: tuple[float, Parameters]
) -> dict[str, xr.Dataset]:
    """The lowest point, constrained, if it is lower than the centre by more than rounding."""
    depth, z = lowest
    llc = float(target.inverse_temperature) * depth
    if not llc < BELOW_CENTER:
        return {}
    names = reading.program.parameters
    sites = constrain(reading.program, names, target.whole(z), reading.arrays)
    return {LOWEST_POINT: point_dataset(sites, llc)}


def _with_findings(
    groups: dict[str, xr.Dataset], settings: dict[str, Any]
) -> tuple[Any, list[dict[str, Any]]]:
    """Inference data that holds what is found in it, and that."""
    attrs = attributes(settings)
    groups = {**groups, "posterior": groups["posterior"].assign_attrs(attrs)}
    findings = findings_of(groups)
    return inference_data(groups, {**attrs, **attributes({"findings": findings})}), findings


def _constants(reading: ModelReading) -> dict[str, Any]:
    """The model's array arguments by name, less those that are the observations themselves."""
    named = reading.program.arguments.names(reading.program.model, reading.arrays)
    observed = [np.asarray(value) for value in reading.observed.values()]
    return {
        name: array
        for name, array in named.items()
        if not any(np.array_equal(array, value) for value in observed)
    }


def _non_finite(groups: Any, settings: dict[str, Any], draws: Draws) -> NonFiniteLossError:
    finite = np.isfinite(draws.excess_loss)
    draw, chain = map(int, np.argwhere(~finite.T)[0])
    good = settings["inverse_temperature"] * draws.excess_loss[:, :draw]
    last = f"{good.mean():.4g} ± {monte_carlo(good).error:.2g}" if good.size else "none"
    step = settings.get("num_warmup", 0) + (draw + 1) * settings.get("thinning", 1)
    return NonFiniteLossError(
        f"The loss became non-finite in chain {chain} at draw {draw} (step {step}); λ̂ of the "
        f"draws before it: {last}. Lower `step_size` or raise `localization`. The draws are in "
        "the attribute `idata` of this error.",
        idata=_with_findings(groups, settings)[0],
    )


def unconstrained_samples(reading: ModelReading, samples: dict[str, Any]) -> Parameters:
    """Unconstrained parameters of constrained samples ``[chain, draw, ...]`` by site name."""
    named = flatten_sites(dict(sorted(reading.center.items())))  # the order of a dict's leaves
    missing = [name for name in named if name not in samples]
    if missing:
        raise ValueError(f"The run holds no samples of {missing}; do not exclude sites from it.")
    leaves = [jax.numpy.asarray(samples[name]) for name in named]
    given = jax.tree.unflatten(jax.tree.structure(reading.center), leaves)
    return reading.unconstrain(given)
