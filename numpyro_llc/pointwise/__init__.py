"""The losses of each datum at each draw, streamed, and what follows from them.

``PointwiseLosses`` evaluates them a block of data at a time; the others are functions of it.
"""

from numpyro_llc.pointwise._correlations import loss_covariance, susceptibilities
from numpyro_llc.pointwise._criteria import (
    SingularFluctuation,
    learning_curve,
    singular_fluctuation,
    waic,
)
from numpyro_llc.pointwise._losses import PointwiseLosses, pointwise_losses
from numpyro_llc.pointwise._statistics import PointwiseStatistics, pointwise_statistics

__all__ = [
    "PointwiseLosses",
    "PointwiseStatistics",
    "SingularFluctuation",
    "learning_curve",
    "loss_covariance",
    "pointwise_losses",
    "pointwise_statistics",
    "singular_fluctuation",
    "susceptibilities",
    "waic",
]
