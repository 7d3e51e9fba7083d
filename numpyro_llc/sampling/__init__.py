"""The loop: chains of one sampler, in compiled chunks that the clock paces.

``_compiled`` holds what is compiled, ``_run`` moves it on and keeps the draws, ``_checkpoint``
writes them as they come.
"""

from numpyro_llc.sampling._checkpoint import Checkpoint
from numpyro_llc.sampling._compiled import ELSEWHERE, Layout, advance, forget_compiled, start
from numpyro_llc.sampling._run import Draws, NonFiniteDraw, Run

__all__ = [
    "ELSEWHERE",
    "Checkpoint",
    "Draws",
    "Layout",
    "NonFiniteDraw",
    "Run",
    "advance",
    "forget_compiled",
    "start",
]
