"""The loop: chains of one sampler, in compiled chunks that the clock paces.

``_schedule`` says how long to run, ``_plan`` what is run, ``_compiled`` holds what is compiled,
``_run`` moves it on and keeps the draws, ``_folder`` writes them as they come, ``_lengths``
chooses the lengths that the user left open.
"""

from numpyro_llc.sampling._compiled import OTHER_DATA, Layout, advance, forget_compiled, start
from numpyro_llc.sampling._folder import RunFolder, write_arrays
from numpyro_llc.sampling._identity import (
    check_same_settings,
    fingerprint,
    open_folder,
    plain,
)
from numpyro_llc.sampling._lengths import Finished, evaluation_rows, finish
from numpyro_llc.sampling._plan import Plan, RunKeys, make_plan, run_keys
from numpyro_llc.sampling._run import Draws, NonFiniteDraw, Run
from numpyro_llc.sampling._schedule import (
    RELATIVE_ERROR,
    Schedule,
    Until,
    check_schedule,
    with_defaults,
)

__all__ = [
    "OTHER_DATA",
    "RELATIVE_ERROR",
    "RunFolder",
    "Draws",
    "Finished",
    "Layout",
    "NonFiniteDraw",
    "Plan",
    "Run",
    "RunKeys",
    "Schedule",
    "Until",
    "advance",
    "check_same_settings",
    "check_schedule",
    "evaluation_rows",
    "fingerprint",
    "finish",
    "forget_compiled",
    "make_plan",
    "open_folder",
    "plain",
    "run_keys",
    "start",
    "with_defaults",
    "write_arrays",
]
