"""Free energies: one model at many temperatures, volumes, phases, comparisons of models."""

from numpyro_llc.evidence._compare import compare
from numpyro_llc.evidence._criteria import FreeEnergy, bic, local_free_energy, wbic
from numpyro_llc.evidence._free_energy import free_energy, free_energy_curve
from numpyro_llc.evidence._ladder import temperature_ladder
from numpyro_llc.evidence._multiplicity import fit_multiplicity
from numpyro_llc.evidence._phases import Crossing, crossings, phases
from numpyro_llc.evidence._volume import VolumeScaling, volume_scaling

__all__ = [
    "Crossing",
    "FreeEnergy",
    "VolumeScaling",
    "bic",
    "compare",
    "crossings",
    "fit_multiplicity",
    "free_energy",
    "free_energy_curve",
    "local_free_energy",
    "phases",
    "temperature_ladder",
    "volume_scaling",
    "wbic",
]
