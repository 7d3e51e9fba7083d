"""λ̂ over a grid of settings: ``sweep``.

``_cells`` runs cells side by side, ``_grid`` holds and saves what they gave, ``_plateau`` reads it.
"""

from numpyro_llc.sweep._plateau import plateau
from numpyro_llc.sweep._sweep import sweep

__all__ = ["plateau", "sweep"]
