"""One model at many temperatures, and what follows: its free energy, and its multiplicity."""

from numpyro_llc.ladder._free_energy import free_energy, free_energy_curve
from numpyro_llc.ladder._multiplicity import fit_multiplicity
from numpyro_llc.ladder._run import temperature_ladder

__all__ = ["fit_multiplicity", "free_energy", "free_energy_curve", "temperature_ladder"]
