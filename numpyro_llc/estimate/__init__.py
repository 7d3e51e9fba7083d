"""λ̂ at one centre: of a model, and of its parts."""

from numpyro_llc.estimate._estimate import estimate_llc
from numpyro_llc.estimate._refined import refined_llc

__all__ = ["estimate_llc", "refined_llc"]
