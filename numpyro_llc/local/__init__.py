"""The density around a point: localized, tempered, with its gradients and curvature."""

from numpyro_llc.local._center import Center, find_center
from numpyro_llc.local._chosen import ChosenLocalization, reason_of
from numpyro_llc.local._curvature import (
    DENSE_LIMIT,
    UNKNOWN,
    Curvature,
    curvature_at_center,
    gradient_at_center,
    lowest_curvature,
    rounding,
)
from numpyro_llc.local._derivatives import inner
from numpyro_llc.local._edge import AT_THE_EDGE, edge_of
from numpyro_llc.local._evaluation import (
    OF_DRAWS,
    ROWS_ALWAYS_AFFORDABLE,
    Evaluation,
    EvaluationRows,
    OtherData,
    all_rows,
    excess_losses,
    rows_to_evaluate,
    shuffled_rows,
    some_rows,
    statistics_of_draws,
)
from numpyro_llc.local._gradients import (
    Anchor,
    curvature_product,
    draw_batches,
    draw_rows,
    drawn,
    later_drawn,
    make_anchor,
    noise_product,
    noise_samples,
    part_of,
    potential_gradient,
    square_norm,
)
from numpyro_llc.local._localize import (
    TRUTHS,
    Localization,
    LocalizedModel,
    as_localized,
    check_localized,
    localize,
)
from numpyro_llc.local._near_center import is_constant_nearby
from numpyro_llc.local._notices import without_effect_text
from numpyro_llc.local._parts import Fixed, Sites, split
from numpyro_llc.local._shards import (
    CHAINS,
    DATA,
    chain_size,
    chains_on,
    in_turn,
    replaced_in_turn,
    whole,
    with_last_again,
)
from numpyro_llc.local._slope import (
    bad_gradient,
    check_differentiable,
    check_start,
    is_differentiable,
)
from numpyro_llc.local._spectrum import Spectrum, spectrum_at_center
from numpyro_llc.local._starts import spread_starts
from numpyro_llc.local._target import LocalTarget, PosteriorTarget, make_target
from numpyro_llc.local._total_loss import check_finite, total_loss

__all__ = [
    "AT_THE_EDGE",
    "Anchor",
    "CHAINS",
    "Center",
    "ChosenLocalization",
    "Curvature",
    "DATA",
    "DENSE_LIMIT",
    "OtherData",
    "Evaluation",
    "EvaluationRows",
    "Fixed",
    "LocalTarget",
    "Localization",
    "LocalizedModel",
    "PosteriorTarget",
    "OF_DRAWS",
    "ROWS_ALWAYS_AFFORDABLE",
    "Spectrum",
    "Sites",
    "TRUTHS",
    "UNKNOWN",
    "all_rows",
    "as_localized",
    "bad_gradient",
    "chain_size",
    "chains_on",
    "check_differentiable",
    "check_finite",
    "check_localized",
    "check_start",
    "curvature_at_center",
    "curvature_product",
    "draw_batches",
    "draw_rows",
    "drawn",
    "later_drawn",
    "edge_of",
    "excess_losses",
    "find_center",
    "gradient_at_center",
    "in_turn",
    "inner",
    "is_constant_nearby",
    "is_differentiable",
    "localize",
    "lowest_curvature",
    "make_anchor",
    "make_target",
    "noise_product",
    "noise_samples",
    "replaced_in_turn",
    "part_of",
    "potential_gradient",
    "reason_of",
    "rounding",
    "rows_to_evaluate",
    "shuffled_rows",
    "some_rows",
    "spectrum_at_center",
    "split",
    "spread_starts",
    "square_norm",
    "statistics_of_draws",
    "total_loss",
    "whole",
    "with_last_again",
    "without_effect_text",
]
