"""What a run reports of itself, and how a result stores it: the attrs of its inference data."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpyro

from numpyro_llc.inference_data import Groups, InferenceData, attributes, posterior
from numpyro_llc.local import Curvature, LocalTarget, reason_of
from numpyro_llc.models import Fields, rounded_to
from numpyro_llc.sampling import Finished, Plan, Until

_TRUTHS = (
    "interrupted",
    "ended_at_limit",
    "warmup_was_cut",
    "step_size_is_automatic",
    "control_variates",
    "from_stream",
)


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Numbers and names of a run; None where they are not known.

    Attributes
    ----------
    num_data, num_parameters : int
        n, and how many parameters were sampled.
    inverse_temperature : float
        β.
    localization : float or dict of str to float
        γ, one for all sites or by site.
    localization_reason : str
        Why this γ, where ``choose_localization`` chose it.
    truth : str
        What losses are measured against: "data", or "center".
    center_loss : float
        ``nL(w*)`` in nats, of the data whatever the truth.
    center_gradient_norm, center_smallest_eigenvalue, center_largest_eigenvalue : float
        Of ``nL`` at the centre, in unconstrained space, nats.
    center_shift, center_expected_llc : float
        See ``Curvature.newton_shift`` and ``Curvature.expected_llc``.
    constant_loss : bool
        Whether the loss does not change close to the centre; where its gradient there is zero.
    center_edge : str
        Sites along which the loss falls to the edge of their support, separated by commas; left out
        if there are none.
    kernel, chain_method : str
    num_warmup, thinning, num_steps : int
        Steps of the warm-up, steps between draws, and steps of each chain in all.
    sampling_time, compilation_time : float
        Seconds of the call, and of them those of compilation.
    ended_by : str
        See ``Finished``.
    interrupted, ended_at_limit : bool
        Whether Ctrl-C ended it; whether an automatic run ended far from the error wanted.
    warmup_was_cut : bool
        Whether the seconds that were given ended the warm-up before its end.
    seconds_given : float
        The limit of `until`.
    relative_error_wanted : float
        Of λ̂, where the length was chosen.
    evaluation_rows : int
        Rows on which the recorded loss was evaluated; 0 for the data as a whole.
    evaluation_error : float
        Standard error of λ̂ for the rows that were not.
    from_stream : bool
        True where batches came from a stream, and losses are those of its `evaluation`.
    batch_size : int
        0 for the full data.
    step_size, step_size_bias : float
        ε, and what it has added to λ̂ (an upper bound where ε was found).
    step_size_is_automatic, control_variates : bool
    curvature_along_chains, curvature_spread : float
        The largest curvature of the potential along the chains, and its relative change, squared.
    gradient_evaluations : float
        Of each chain.
    gradient_noise, gradient_noise_raw, gradient_noise_bias : float
        Trace of the covariance of a batch gradient as used and without control variates; what the
        noise adds to λ̂, or of a step that was found what its correction may leave, at most.
    mala_acceptance : float
        What a Metropolis test would accept of the steps.
    without_effect : dict of str to int
        How many sampled parameters, by name, the loss does not depend on.
    data_error : float
        Standard deviation of λ̂ over data sets of this size.
    numpyro_version, jax_version, precision : str
        Of the libraries that sampled; "float32" or "float64", of the parameters.
    draws_error : float
        Standard error of λ̂ for the draws from the truth at the centre, where divergences take any.
    findings : str
        JSON; read it with :func:`~numpyro_llc.results.findings`.
    """

    num_data: int | None = None
    num_parameters: int | None = None
    inverse_temperature: float | None = None
    localization: float | dict[str, float] | None = None
    localization_reason: str | None = None
    truth: str | None = None
    center_loss: float | None = None
    center_gradient_norm: float | None = None
    center_smallest_eigenvalue: float | None = None
    center_largest_eigenvalue: float | None = None
    center_shift: float | None = None
    center_expected_llc: float | None = None
    constant_loss: bool | None = None
    center_edge: str | None = None
    kernel: str | None = None
    chain_method: str | None = None
    num_warmup: int | None = None
    thinning: int | None = None
    num_steps: int | None = None
    sampling_time: float | None = None
    compilation_time: float | None = None
    ended_by: str | None = None
    interrupted: bool | None = None
    ended_at_limit: bool | None = None
    warmup_was_cut: bool | None = None
    seconds_given: float | None = None
    relative_error_wanted: float | None = None
    evaluation_rows: int | None = None
    evaluation_error: float | None = None
    from_stream: bool | None = None
    batch_size: int | None = None
    step_size: float | None = None
    step_size_bias: float | None = None
    step_size_is_automatic: bool | None = None
    control_variates: bool | None = None
    curvature_along_chains: float | None = None
    curvature_spread: float | None = None
    gradient_evaluations: float | None = None
    gradient_noise: float | None = None
    gradient_noise_raw: float | None = None
    gradient_noise_bias: float | None = None
    mala_acceptance: float | None = None
    without_effect: dict[str, int] | None = None
    data_error: float | None = None
    draws_error: float | None = None
    numpyro_version: str | None = None
    jax_version: str | None = None
    precision: str | None = None
    findings: str | None = None

    def to_attrs(self) -> dict[str, object]:
        """Numbers and strings, as netCDF and Zarr hold them; what is not known is left out."""
        known = {k: v for k, v in vars(self).items() if v is not None}
        if self.num_warmup is not None:
            known["tuning_steps"] = self.num_warmup  # ArviZ's name for it
        return attributes(known)

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, object]) -> "RunReport":
        """Read what :meth:`to_attrs` wrote; other names are passed over."""
        names = {field.name for field in dataclasses.fields(cls)}
        known: Fields = {k: v for k, v in attrs.items() if k in names}
        for name in ("localization", "without_effect"):
            if isinstance(stored := known.get(name), str):
                known[name] = json.loads(stored)
        for name in _TRUTHS:
            if name in known:
                known[name] = bool(known[name])
        return cls(**known)

    def number(self, name: str) -> float:
        """A number that is needed, or an error that says that the result does not hold it."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"The result holds no `{name}` in its attrs, which is needed here.")
        return float(value)

    @property
    def shorter_steps(self) -> str:
        """How to shorten the steps of the kernel: the setting that it has."""
        if self.step_size is not None:
            return "Lower `step_size`"
        if self.kernel in ("nuts", "hmc", "mala"):
            kind = "NUTS" if self.kernel == "nuts" else "HMC"
            return f"Give a kernel object with a higher `target_accept_prob` than 0.99 ({kind})"
        return "Shorten the steps of the kernel"

    @property
    def smallest_localization(self) -> float | None:
        """The smallest γ of any site."""
        if isinstance(self.localization, dict):
            return min(self.localization.values())
        return self.localization


def report_of(idata: InferenceData | Groups) -> RunReport:
    """The report of a result."""
    return RunReport.from_attrs(posterior(idata).attrs)


def one_or_by_site(localization: Mapping[str, float | jax.Array]) -> float | dict[str, float]:
    """γ of all sites as one number where they agree."""
    gammas = {name: float(gamma) for name, gamma in localization.items()}
    return next(iter(gammas.values())) if len(set(gammas.values())) == 1 else gammas


def report_of_software(target: LocalTarget) -> Fields:
    """Fields that say what sampled, and how accurately it computes."""
    precision, rounded = str(jnp.result_type(*jax.tree.leaves(target.center))), rounded_to()
    return {
        "numpyro_version": numpyro.__version__,
        "jax_version": jax.__version__,
        "precision": precision if rounded is None else f"{precision}, products in {rounded}",
    }


def report_of_run(plan: Plan, finished: Finished) -> Fields:
    """Fields that say how a run went."""
    until = plan.schedule.until or Until()
    return {
        "kernel": plan.kernel,
        "localization_reason": reason_of(plan.local.localization),
        "chain_method": plan.schedule.chain_method,
        "num_warmup": finished.num_warmup,
        "thinning": finished.thinning,
        "num_steps": finished.num_steps,
        "sampling_time": finished.seconds,
        "compilation_time": finished.compiling,
        "ended_by": finished.ended_by,
        "interrupted": finished.ended_by == "interrupt",
        "ended_at_limit": finished.ended_at_limit,
        "warmup_was_cut": finished.warmup_was_cut,
        "seconds_given": until.seconds,
        "relative_error_wanted": until.relative_error,
        "evaluation_rows": finished.evaluation_rows,
        "evaluation_error": finished.evaluation_error * float(plan.target.inverse_temperature),
        "from_stream": bool(plan.target.stream) or None,
    }


def report_of_center(curvature: Curvature | None) -> Fields:
    """Fields that say what was measured at the centre, if anything was."""
    if curvature is None:
        return {}
    gradient = {"center_gradient_norm": curvature.gradient_norm}
    if curvature.hessian is None and curvature.largest != curvature.largest:  # NaN: not measured
        return gradient
    return {
        **gradient,
        "center_smallest_eigenvalue": curvature.smallest,
        "center_largest_eigenvalue": curvature.largest,
        "center_shift": curvature.newton_shift,
        "center_expected_llc": None if curvature.hessian is None else curvature.expected_llc,
        "center_edge": ", ".join(curvature.edge) or None,
    }
