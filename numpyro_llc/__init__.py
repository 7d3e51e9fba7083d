"""Local learning coefficients of NumPyro models, with their Monte Carlo error, in ArviZ."""

from numpyro_llc import estimators, exact, zoo
from numpyro_llc.calibration import calibrate
from numpyro_llc.center import Center, find_center
from numpyro_llc.conversion import from_numpyro
from numpyro_llc.errors import LLCWarning, NonFiniteLossError
from numpyro_llc.estimate import estimate_llc
from numpyro_llc.handlers import LocalizedModel, localize
from numpyro_llc.kernels import PSGLD, SGD, SGLD, SGNHT
from numpyro_llc.summaries import summary

__all__ = [
    "Center",
    "LLCWarning",
    "LocalizedModel",
    "NonFiniteLossError",
    "PSGLD",
    "SGD",
    "SGLD",
    "SGNHT",
    "calibrate",
    "estimate_llc",
    "estimators",
    "exact",
    "find_center",
    "from_numpyro",
    "localize",
    "summary",
    "zoo",
]
