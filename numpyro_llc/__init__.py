"""Local learning coefficients of NumPyro models, with their Monte Carlo error, in ArviZ."""

from numpyro_llc import diagnostics, estimators, exact, zoo
from numpyro_llc.budget import error_budget
from numpyro_llc.calibration import calibrate
from numpyro_llc.center import Center, find_center
from numpyro_llc.conversion import from_numpyro
from numpyro_llc.diagnosis import diagnose
from numpyro_llc.errors import CheckpointError, LLCWarning, NonFiniteLossError
from numpyro_llc.estimate import estimate_llc
from numpyro_llc.handlers import LocalizedModel, localize
from numpyro_llc.kernels import PSGLD, SGD, SGLD, SGNHT
from numpyro_llc.models import network_model
from numpyro_llc.points import lowest_point
from numpyro_llc.refined import refined_llc
from numpyro_llc.summaries import summary, two_run_summary
from numpyro_llc.sweep import sweep
from numpyro_llc.trajectory import llc_trajectory

__all__ = [
    "Center",
    "CheckpointError",
    "LLCWarning",
    "LocalizedModel",
    "NonFiniteLossError",
    "PSGLD",
    "SGD",
    "SGLD",
    "SGNHT",
    "calibrate",
    "diagnose",
    "diagnostics",
    "error_budget",
    "estimate_llc",
    "estimators",
    "exact",
    "find_center",
    "from_numpyro",
    "llc_trajectory",
    "localize",
    "lowest_point",
    "network_model",
    "refined_llc",
    "summary",
    "two_run_summary",
    "sweep",
    "zoo",
]
