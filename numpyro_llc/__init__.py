"""Local learning coefficients of NumPyro models, with their Monte Carlo error, in ArviZ."""

from numpyro_llc.center import Center, find_center
from numpyro_llc.errors import LLCWarning, NonFiniteLossError
from numpyro_llc.estimate import estimate_llc, from_numpyro
from numpyro_llc.handlers import LocalizedModel, localize
from numpyro_llc.inference_data import summary

__all__ = [
    "Center",
    "LLCWarning",
    "LocalizedModel",
    "NonFiniteLossError",
    "estimate_llc",
    "find_center",
    "from_numpyro",
    "localize",
    "summary",
]
