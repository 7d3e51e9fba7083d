"""Local learning coefficients of NumPyro models, with their Monte Carlo error, in ArviZ."""

from numpyro_llc import diagnostics, estimators, exact, zoo
from numpyro_llc.budget import error_budget
from numpyro_llc.calibration import calibrate
from numpyro_llc.center import Center, find_center
from numpyro_llc.comparison import FreeEnergy, bic, compare, local_free_energy, wbic
from numpyro_llc.conversion import from_numpyro
from numpyro_llc.diagnosis import diagnose
from numpyro_llc.errors import (
    CheckpointError,
    LLCWarning,
    NonFiniteLossError,
    TrajectoryError,
)
from numpyro_llc.estimate import estimate_llc
from numpyro_llc.handlers import LocalizedModel, localize
from numpyro_llc.kernels import PSGLD, SGD, SGLD, SGNHT
from numpyro_llc.ladder import (
    fit_multiplicity,
    free_energy,
    free_energy_curve,
    temperature_ladder,
)
from numpyro_llc.models import network_model
from numpyro_llc.phases import Crossing, crossings, phases
from numpyro_llc.points import lowest_point
from numpyro_llc.pointwise import (
    SingularFluctuation,
    learning_curve,
    loss_covariance,
    pointwise_losses,
    pointwise_statistics,
    singular_fluctuation,
    susceptibilities,
    waic,
)
from numpyro_llc.refined import refined_llc
from numpyro_llc.summaries import summary, two_run_summary
from numpyro_llc.sweep import sweep
from numpyro_llc.trajectory import llc_trajectory
from numpyro_llc.volume import VolumeScaling, volume_scaling

__all__ = [
    "Center",
    "CheckpointError",
    "Crossing",
    "FreeEnergy",
    "LLCWarning",
    "LocalizedModel",
    "NonFiniteLossError",
    "PSGLD",
    "SGD",
    "SGLD",
    "SGNHT",
    "SingularFluctuation",
    "TrajectoryError",
    "VolumeScaling",
    "bic",
    "calibrate",
    "compare",
    "crossings",
    "diagnose",
    "diagnostics",
    "error_budget",
    "estimate_llc",
    "estimators",
    "exact",
    "find_center",
    "fit_multiplicity",
    "free_energy",
    "free_energy_curve",
    "from_numpyro",
    "learning_curve",
    "llc_trajectory",
    "local_free_energy",
    "localize",
    "loss_covariance",
    "lowest_point",
    "network_model",
    "phases",
    "pointwise_losses",
    "pointwise_statistics",
    "refined_llc",
    "singular_fluctuation",
    "summary",
    "susceptibilities",
    "sweep",
    "temperature_ladder",
    "two_run_summary",
    "volume_scaling",
    "waic",
    "wbic",
    "zoo",
]
