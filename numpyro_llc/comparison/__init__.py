"""Free energies of models and of phases of one model, and their comparison.

A criterion is a function from a result to a :class:`FreeEnergy` and a line of :data:`CRITERIA`.
"""

from numpyro_llc.comparison._compare import CRITERIA, compare
from numpyro_llc.comparison._criteria import FreeEnergy, bic, local_free_energy, wbic

__all__ = ["CRITERIA", "FreeEnergy", "bic", "compare", "local_free_energy", "wbic"]
