"""λ̂ along a training run: ``llc_trajectory``.

``_centers`` turns whatever holds the checkpoints into centres, one at a time, ``_walk`` visits
them, ``_carry`` takes the chains from one to the next, ``_record`` keeps the rows, on disk too.
"""

from numpyro_llc.trajectory._trajectory import llc_trajectory

__all__ = ["llc_trajectory"]
