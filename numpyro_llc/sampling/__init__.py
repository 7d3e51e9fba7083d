"""The loop: chains of one sampler, in compiled chunks that the clock paces.

``_schedule`` says how long to run, ``_plan`` what is run, ``_make_plan`` makes one of what the user
gave, ``_compiled`` holds what is compiled,
``_run`` moves it on and keeps the draws, ``_folder`` writes them as they come, ``_lengths``
chooses the lengths that the user left open. ``_output`` is the folder of any function that has
one: ``_lock`` keeps others out of it, and ``_files`` writes files that are whole. ``_workers``
computes the rows of any table, here or on an executor.
"""

from numpyro_llc.sampling._clock import Clock
from numpyro_llc.sampling._common_folder import CommonFolder, CommonRunFolder
from numpyro_llc.sampling._compiled import OTHER_DATA, advance, forget_compiled, last_offsets, start
from numpyro_llc.sampling._devices import mesh_of
from numpyro_llc.sampling._draws import Draws, Finished, NonFiniteDraw
from numpyro_llc.sampling._files import (
    damaged,
    read_arrays,
    whole_file,
    write_arrays,
    write_bytes,
    write_netcdf,
)
from numpyro_llc.sampling._folder import RunFolder
from numpyro_llc.sampling._identity import fingerprint, plain
from numpyro_llc.sampling._layout import Layout
from numpyro_llc.sampling._lengths import evaluation_rows, finish
from numpyro_llc.sampling._make_plan import make_plan
from numpyro_llc.sampling._output import OutputFolder, check_output
from numpyro_llc.sampling._plan import Plan, RunKeys, run_keys
from numpyro_llc.sampling._processes import Processes
from numpyro_llc.sampling._run import Run
from numpyro_llc.sampling._schedule import (
    RELATIVE_ERROR,
    Schedule,
    Until,
    check_schedule,
    with_defaults,
)
from numpyro_llc.sampling._workers import Executor, Failed, check_executor, outcomes

__all__ = [
    "OTHER_DATA",
    "RELATIVE_ERROR",
    "Clock",
    "CommonFolder",
    "CommonRunFolder",
    "Draws",
    "Executor",
    "Failed",
    "Finished",
    "Layout",
    "NonFiniteDraw",
    "OutputFolder",
    "Plan",
    "Processes",
    "Run",
    "RunFolder",
    "RunKeys",
    "Schedule",
    "Until",
    "advance",
    "check_executor",
    "check_output",
    "check_schedule",
    "damaged",
    "evaluation_rows",
    "fingerprint",
    "finish",
    "forget_compiled",
    "last_offsets",
    "make_plan",
    "mesh_of",
    "outcomes",
    "plain",
    "read_arrays",
    "run_keys",
    "start",
    "whole_file",
    "with_defaults",
    "write_arrays",
    "write_bytes",
    "write_netcdf",
]
