"""Put a run's draws, the model's data and the findings together as inference data."""

import dataclasses
import warnings
from functools import partial

import jax
import numpy as np
import xarray as xr

from numpyro_llc.errors import DataError, LLCWarning, NonFiniteLossError, warn
from numpyro_llc.estimators import data_error, parts_error
from numpyro_llc.inference_data import InferenceData, error_of_mean, inference_data, labelled
from numpyro_llc.kernels import metropolis_report
from numpyro_llc.local import OF_DRAWS, Curvature, LocalTarget, is_constant_nearby, total_loss
from numpyro_llc.models import ModelReading, Parameters, PyTree, constrain, named_leaves, on_host
from numpyro_llc.results._constants import constants_of
from numpyro_llc.results._diagnose import diagnosed
from numpyro_llc.results._draws import constrained_draws, log_likelihood_of
from numpyro_llc.results._findings import Finding, findings_to_json, text_of
from numpyro_llc.results._keep import CHAIN_DRAW, bare, keeping
from numpyro_llc.results._labels import Labels
from numpyro_llc.results._lowest_point import LOWEST_POINT, point_dataset
from numpyro_llc.results._report import (
    RunReport,
    one_or_by_site,
    report_of_center,
    report_of_run,
    report_of_software,
)
from numpyro_llc.results._stored import Stored, what_to_store
from numpyro_llc.results.checks import BELOW_CENTER
from numpyro_llc.sampling import OTHER_DATA, Draws, Finished, Plan, Run, last_offsets

_Draws = dict[str, np.ndarray]


def result_of(
    run: Run,
    finished: Finished,
    rng_key: jax.Array,
    *,
    plan: Plan | None = None,
    state: PyTree = None,
    curvature: Curvature | None = None,
    stored: Stored | None = None,
) -> InferenceData:
    """Inference data of a finished run, or of one block of its chains.

    Parameters
    ----------
    plan, state
        Of the block; by default of the run.
    rng_key : jax.Array
        For what is measured once more at the end of the chains.
    curvature : Curvature, optional
        At the centre, if it was measured.
    stored : Stored, optional
        What is kept of the draws beside ``llc``, and under which names; nothing if left out.
    """
    plan = run.plan if plan is None else plan
    state = run.state if state is None else state
    sampler, target, draws = plan.sampler, plan.target, finished.draws
    if isinstance(finished.failure, DataError):  # the chains ended in the midst of a step
        finished.failure.idata = bare(draws, target)
        raise finished.failure
    with keeping(draws, target):
        report = RunReport(
            **report_of_run(plan, finished),
            **report_of_center(curvature),
            **sampler.report(state, target, draws.statistics),
            **metropolis_report(sampler, state, target, run.rows, rng_key),
        )
        if target.truth is None and _has_no_slope(report, draws):
            offsets = last_offsets(sampler, state, target.center)
            constant = is_constant_nearby(target, offsets, run.rows)
            report = dataclasses.replace(report, constant_loss=constant)
        stored = what_to_store(plan.reading, False) if stored is None else stored
        settings = (plan.reading, target, draws, plan.num_data, stored, report)
        if finished.failure is None:
            return assemble(*settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LLCWarning)  # the error says more, and has the findings
            finished.failure.idata = assemble(*settings)
    raise finished.failure


def _has_no_slope(report: RunReport, draws: Draws) -> bool:
    """Whether the gradient of the loss at the centre is known to be exactly zero.

    It is at a point where the loss is constant; at a minimum that was searched for it is not.
    """
    slope = draws.statistics.get("center_slope")
    return report.center_gradient_norm == 0.0 or (slope is not None and not np.any(slope))


def assemble(
    reading: ModelReading,
    target: LocalTarget,
    draws: Draws,
    num_data: int,
    stored: Stored,
    report: RunReport,
) -> InferenceData:
    """Inference data of draws; raises for non-finite draws, warns of what is doubtful."""
    beta = float(target.inverse_temperature)
    report = dataclasses.replace(
        report,
        num_data=num_data,
        num_parameters=target.dimension,
        inverse_temperature=beta,
        localization=one_or_by_site(target.localization),
        truth="data" if target.truth is None else "center",
        **report_of_software(target),
        center_loss=total_loss(reading.center_losses),
        without_effect={
            name: int(np.size(leaf))
            for name, leaf in named_leaves(target.center).items()
            if name in reading.without_effect
        },
    )
    groups = _groups(reading, target, draws, stored)
    if stored.log_likelihood:
        name = "tempered_log_likelihood" if _is_tempered(beta) else "log_likelihood"
        groups[name] = labelled(
            log_likelihood_of(target, draws.positions),
            lead=CHAIN_DRAW,
            axes=stored.labels.losses,
            coords=stored.labels.coords,
            attrs=_note(beta),
        )
    if not np.all(np.isfinite(draws.excess_loss)):
        raise _non_finite(groups, report, draws)
    share = _share_of_a_row(reading, num_data)
    error = data_error(beta * draws.excess_loss, beta * np.sqrt(share) * draws.contrasts)
    report = dataclasses.replace(report, data_error=error, draws_error=_draws_error(draws, beta))
    if target.stream:  # both are of the loss that is sampled, of which they see some rows alone
        report = dataclasses.replace(report, data_error=None, center_shift=None)
    idata, found = _with_findings(groups, report)
    if found:
        warn(text_of(found), idata)
    return idata


def _draws_error(draws: Draws, beta: float) -> float | None:
    """The error of λ̂ for the draws from the truth at the centre; None if there are none."""
    parts, _ = _by_prefix(draws.statistics, OF_DRAWS)
    if not parts:
        return None
    stacked = np.stack([part.astype(np.float64) for part in parts.values()], axis=-1)
    return parts_error(beta * draws.excess_loss, beta * stacked)


def _share_of_a_row(reading: ModelReading, num_data: int) -> float:
    """The variance of a row's loss that scatter of its data makes, over its square.

    A row that counts w times has w times the variance of one datum, where its square is w². Of
    different w the mean share, as of losses that do not depend on them. Where no
    ``handlers.scale`` says w, it is n over the number of rows.
    """
    weights = np.concatenate(
        [np.ravel(on_host(x).astype(np.float64)) for x in reading.data_weights.values()]
    )
    if np.all(weights == 1.0):
        return reading.num_losses / num_data
    return float(weights.sum() / np.sum(weights**2))


def _is_tempered(beta: float) -> bool:
    """Whether β is not that of a posterior."""
    return not np.isclose(beta, 1.0)


def _note(beta: float) -> dict[str, object]:
    """Attributes of the log likelihood: why ``arviz.loo`` may not read it."""
    if not _is_tempered(beta):
        return {"inverse_temperature": beta}
    note = (
        f"The draws are at β = {beta:.3g}, and LOO and WAIC hold at β = 1 only: so arviz.loo and "
        "arviz.compare, which read `log_likelihood`, do not find this group. For these run with "
        "inverse_temperature=1.0."
    )
    return {"inverse_temperature": beta, "note": note}


def _groups(
    reading: ModelReading, target: LocalTarget, draws: Draws, stored: Stored
) -> dict[str, xr.Dataset]:
    """All groups but the log likelihood."""
    beta = float(target.inverse_temperature)
    names, labels = stored.sites, stored.labels
    sites = constrained_draws(names, draws.positions, target) if names else {}
    at_center = total_loss(reading.center_losses) if target.truth is None else 0.0
    loss = at_center + draws.excess_loss
    others, own = _by_prefix(_by_prefix(draws.statistics, OF_DRAWS)[1], OTHER_DATA)
    label = partial(labelled, coords=labels.coords)
    return {
        "posterior": label(
            {"llc": beta * draws.excess_loss, **named_leaves(sites)},
            lead=CHAIN_DRAW,
            axes=labels.sites,
            taken=("data", "llc_on") if others else (),
        ).assign(_llc_on(beta, others)),
        "sample_stats": labelled(
            {"loss": loss, "excess_loss": draws.excess_loss, **own}, lead=CHAIN_DRAW
        ),
        "observed_data": label(jax.tree.map(on_host, reading.observations), axes=labels.sites),
        "constant_data": label(constants_of(reading), axes=labels.constants),
        **_lowest_group(reading, target, draws.lowest, labels),
    }


def _by_prefix(arrays: _Draws, prefix: str) -> tuple[_Draws, _Draws]:
    """Those whose names begin so, without it, and the others."""
    found = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return found, {k: v for k, v in arrays.items() if not k.startswith(prefix)}


def _llc_on(beta: float, others: dict[str, np.ndarray]) -> dict[str, xr.DataArray]:
    """The variable ``llc_on[chain, draw, data]``, if there are other data."""
    if not others:
        return {}
    draws = beta * np.stack([array.astype(np.float64) for array in others.values()], axis=-1)
    dims = (*CHAIN_DRAW, "data")
    return {"llc_on": xr.DataArray(draws, dims=dims, coords={"data": list(others)})}


def _lowest_group(
    reading: ModelReading,
    target: LocalTarget,
    lowest: tuple[float, Parameters | None],
    labels: Labels,
) -> dict[str, xr.Dataset]:
    """The lowest point, constrained, if it is lower than the centre by more than rounding."""
    depth, z = lowest
    llc = float(target.inverse_temperature) * depth
    if z is None or not llc < BELOW_CENTER or target.stream:
        return {}
    names = reading.program.parameters
    sites = constrain(reading.program, names, target.whole(z), reading.arrays)
    return {LOWEST_POINT: point_dataset(sites, llc, labels)}


def _with_findings(
    groups: dict[str, xr.Dataset], report: RunReport
) -> tuple[InferenceData, list[Finding]]:
    """Inference data that holds what is found in it, and that."""
    posterior = groups["posterior"].assign_attrs(report.to_attrs())
    found = diagnosed({**groups, "posterior": posterior})
    report = dataclasses.replace(report, findings=findings_to_json(found))
    return inference_data(groups, report.to_attrs()), found


def _non_finite(
    groups: dict[str, xr.Dataset], report: RunReport, draws: Draws
) -> NonFiniteLossError:
    draw, chain = map(int, np.argwhere(~np.isfinite(draws.excess_loss).T)[0])
    good = groups["posterior"]["llc"].to_numpy()[:, :draw]
    error = error_of_mean(good) if good.size else np.nan
    last = f"{good.mean():.4g}" if good.size else "none"
    last += f" ± {error:.2g}" if np.isfinite(error) else ""
    step = (report.num_warmup or 0) + (draw + 1) * (report.thinning or 1)
    return NonFiniteLossError(
        f"The loss became non-finite in chain {chain} at draw {draw} (step {step}); λ̂ of the "
        f"draws before it: {last}. {report.shorter_steps}, or raise `localization`. The draws are "
        "in the attribute `idata` of this error.",
        idata=_with_findings(groups, report)[0],
    )
