"""λ from the volume of sublevel sets of the loss."""

from numpyro_llc.volume._scaling import VolumeScaling, volume_scaling

__all__ = ["VolumeScaling", "volume_scaling"]
