"""NumPyro program in, centred loss on unconstrained parameters out."""

from numpyro_llc.models._arguments import check_given_in_memory, check_no_stream
from numpyro_llc.models._batching import check_rows_apart, with_batches
from numpyro_llc.models._center_rules import all_finite
from numpyro_llc.models._center_values import FROM_MCMC, as_found
from numpyro_llc.models._counting import check_counted_once, check_num_data_of_model
from numpyro_llc.models._data_rules import check_local_latents
from numpyro_llc.models._elsewhere import read_model
from numpyro_llc.models._host import on_host
from numpyro_llc.models._leaves import leaf_name, named_leaves
from numpyro_llc.models._loader import Loader, let_go
from numpyro_llc.models._loss import NegativeLoss, loss_model
from numpyro_llc.models._measured import draw_starts
from numpyro_llc.models._modules import PARAMS, by_site, pure_parameters
from numpyro_llc.models._network import NetworkModel, network_model
from numpyro_llc.models._plates import SLICE_ROWS, Batch, FullPlates, Rows, batch_of, numbers_of
from numpyro_llc.models._precision import rounded_to
from numpyro_llc.models._program import Program, constrain, site_loss
from numpyro_llc.models._reading import ModelReading
from numpyro_llc.models._rules import TAKEN, is_traced
from numpyro_llc.models._shards_of_rows import ShardsOfRows
from numpyro_llc.models._slices import batch_on_host
from numpyro_llc.models._sources import (
    Source,
    check_in_memory,
    fetched,
    reading_errors,
    shapes_of,
    sources_of,
    values_at_rows,
)
from numpyro_llc.models._stream import Arguments, Stream, without_stream
from numpyro_llc.models._truth import (
    DRAW_PARTS,
    Truth,
    center_distributions,
    loss_function,
    make_truth,
    row_loss_function,
    site_divergence,
)
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
    "DRAW_PARTS",
    "PARAMS",
    "Arguments",
    "Arrays",
    "Batch",
    "FROM_MCMC",
    "Fields",
    "FullPlates",
    "InAxes",
    "Loader",
    "Losses",
    "ModelReading",
    "NegativeLoss",
    "NetworkModel",
    "Parameters",
    "Program",
    "PyTree",
    "Rows",
    "SLICE_ROWS",
    "ShardsOfRows",
    "Site",
    "Source",
    "Stream",
    "TAKEN",
    "Trace",
    "Truth",
    "all_finite",
    "as_found",
    "batch_of",
    "batch_on_host",
    "by_site",
    "center_distributions",
    "check_counted_once",
    "check_num_data_of_model",
    "check_given_in_memory",
    "check_in_memory",
    "check_no_stream",
    "check_local_latents",
    "check_rows_apart",
    "constrain",
    "draw_starts",
    "fetched",
    "is_traced",
    "leaf_name",
    "let_go",
    "loss_function",
    "loss_model",
    "make_truth",
    "named_leaves",
    "network_model",
    "numbers_of",
    "pure_parameters",
    "read_model",
    "reading_errors",
    "rounded_to",
    "row_loss_function",
    "shapes_of",
    "site_divergence",
    "site_loss",
    "sources_of",
    "values_at_rows",
    "on_host",
    "with_batches",
    "without_stream",
]
