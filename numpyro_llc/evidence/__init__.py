"""Free energies: one model at many temperatures, volumes, phases, comparisons of models."""

from numpyro_llc.evidence._compare import compare
from numpyro_llc.evidence._criteria import FreeEnergy, bic, local_free_energy, wbic
from numpyro_llc.evidence._free_energy import free_energy, free_energy_curve
from numpyro_llc.evidence._ladder import TemperatureLadder, temperature_ladder
from numpyro_llc.evidence._multiplicity import fit_multiplicity
from numpyro_llc.evidence._phases import Crossing, Phases, phases
from numpyro_llc.evidence._two_temperatures import two_temperature_summary
from numpyro_llc.evidence._volume import VolumeScaling, volume_scaling

__all__ = [
    "Crossing",
    "FreeEnergy",
    "Phases",
    "TemperatureLadder",
    "VolumeScaling",
    "bic",
    "compare",
    "fit_multiplicity",
    "free_energy",
    "free_energy_curve",
    "local_free_energy",
    "phases",
    "temperature_ladder",
    "two_temperature_summary",
    "volume_scaling",
    "wbic",
]
