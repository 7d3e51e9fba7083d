"""NumPyro program in, centred loss on unconstrained parameters out."""

from numpyro_llc.models._arguments import split_arguments
from numpyro_llc.models._batching import check_rows_apart, with_batches
from numpyro_llc.models._center_values import as_found
from numpyro_llc.models._leaves import leaf_name, named_leaves
from numpyro_llc.models._measured import draw_starts
from numpyro_llc.models._modules import PARAMS, by_site
from numpyro_llc.models._network import NetworkModel, network_model
from numpyro_llc.models._program import FullPlates, Program, constrain
from numpyro_llc.models._reading import ModelReading, read_model
from numpyro_llc.models._types import (
    Arrays,
    Fields,
    InAxes,
    Losses,
    Parameters,
    PyTree,
    Site,
    Trace,
)

__all__ = [
    "PARAMS",
    "Arrays",
    "Fields",
    "FullPlates",
    "InAxes",
    "Losses",
    "ModelReading",
    "NetworkModel",
    "Parameters",
    "Program",
    "PyTree",
    "Site",
    "Trace",
    "as_found",
    "by_site",
    "check_rows_apart",
    "constrain",
    "draw_starts",
    "leaf_name",
    "named_leaves",
    "network_model",
    "read_model",
    "split_arguments",
    "with_batches",
]
