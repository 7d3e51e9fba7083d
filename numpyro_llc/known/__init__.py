"""What is known exactly: values, a zoo of models that have them, and kernels compared with them."""

from numpyro_llc.known import exact, zoo
from numpyro_llc.known._calibrate import calibrate

__all__ = ["calibrate", "exact", "zoo"]
