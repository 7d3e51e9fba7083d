"""Local learning coefficients of NumPyro models, with their Monte Carlo error, in ArviZ."""

from numpyro_llc import estimators, evidence, plots, pointwise
from numpyro_llc.errors import (
    CheckpointError,
    LLCWarning,
    NonFiniteCenterError,
    NonFiniteLossError,
    TrajectoryError,
)
from numpyro_llc.estimate import estimate_llc, refined_llc
from numpyro_llc.evidence import compare, local_free_energy, wbic
from numpyro_llc.kernels import PSGLD, SGD, SGLD, SGNHT
from numpyro_llc.known import calibrate, exact, zoo
from numpyro_llc.local import Center, LocalizedModel, find_center, localize
from numpyro_llc.models import Stream, loss_model, network_model
from numpyro_llc.results import diagnose, error_budget, from_numpyro, lowest_point, summary
from numpyro_llc.studies import choose_localization, llc_changes, llc_trajectory, sweep

__all__ = [
    "Center",
    "CheckpointError",
    "LLCWarning",
    "LocalizedModel",
    "NonFiniteCenterError",
    "NonFiniteLossError",
    "PSGLD",
    "SGD",
    "SGLD",
    "SGNHT",
    "Stream",
    "TrajectoryError",
    "calibrate",
    "choose_localization",
    "compare",
    "diagnose",
    "error_budget",
    "estimate_llc",
    "estimators",
    "evidence",
    "exact",
    "find_center",
    "from_numpyro",
    "llc_changes",
    "llc_trajectory",
    "local_free_energy",
    "localize",
    "loss_model",
    "lowest_point",
    "network_model",
    "plots",
    "pointwise",
    "refined_llc",
    "summary",
    "sweep",
    "wbic",
    "zoo",
]
