"""Many runs in one table: grids, checkpoints of a training run, parts of a model."""

from numpyro_llc.studies._changes import llc_changes
from numpyro_llc.studies._localization import LocalizationChoice, choose_localization
from numpyro_llc.studies._plateau import plateau, recommend
from numpyro_llc.studies._refined import refined_llc
from numpyro_llc.studies._rows import empty
from numpyro_llc.studies._sweep import sweep
from numpyro_llc.studies._trajectory import llc_trajectory

__all__ = [
    "LocalizationChoice",
    "choose_localization",
    "empty",
    "llc_changes",
    "llc_trajectory",
    "plateau",
    "recommend",
    "refined_llc",
    "sweep",
]
