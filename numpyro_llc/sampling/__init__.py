"""The loop: chains of one sampler, in compiled chunks that the clock paces.

``_schedule`` says how long to run, ``_problem`` what is run, ``_compiled`` holds what is compiled,
``_run`` moves it on and keeps the draws, ``_checkpoint`` writes them as they come, ``_lengths``
chooses the lengths that the user left open.
"""

from numpyro_llc.sampling._checkpoint import Checkpoint
from numpyro_llc.sampling._compiled import ELSEWHERE, Layout, advance, forget_compiled, start
from numpyro_llc.sampling._lengths import Finished, finish
from numpyro_llc.sampling._problem import Problem, prepare, target_of
from numpyro_llc.sampling._run import Draws, NonFiniteDraw, Run
from numpyro_llc.sampling._schedule import (
    RELATIVE_ERROR,
    Schedule,
    Until,
    check_schedule,
    with_defaults,
)

__all__ = [
    "ELSEWHERE",
    "RELATIVE_ERROR",
    "Checkpoint",
    "Draws",
    "Finished",
    "Layout",
    "NonFiniteDraw",
    "Problem",
    "Run",
    "Schedule",
    "Until",
    "advance",
    "check_schedule",
    "finish",
    "forget_compiled",
    "prepare",
    "start",
    "target_of",
    "with_defaults",
]
