"""Many runs in one table: grids, checkpoints of a training run."""

from numpyro_llc.studies._automatic import with_chosen_localization
from numpyro_llc.studies._changes import llc_changes
from numpyro_llc.studies._localization import LocalizationChoice, choose_localization
from numpyro_llc.studies._plateau import plateau, recommend
from numpyro_llc.studies._rows import ERROR, MOMENTS, OF_GAMMA, TEXTS, empty, error_of, of_gamma
from numpyro_llc.studies._sweep import sweep
from numpyro_llc.studies._trajectory import llc_trajectory

__all__ = [
    "ERROR",
    "LocalizationChoice",
    "MOMENTS",
    "OF_GAMMA",
    "TEXTS",
    "choose_localization",
    "empty",
    "error_of",
    "llc_changes",
    "llc_trajectory",
    "of_gamma",
    "plateau",
    "recommend",
    "sweep",
    "with_chosen_localization",
]
