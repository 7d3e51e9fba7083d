"""The loss of all data, and whether it is finite."""

import jax
import numpy as np

from numpyro_llc.errors import NonFiniteLossError
from numpyro_llc.models import Losses, ModelReading, on_host


def total_loss(losses: Losses) -> float:
    """Sum of per-datum losses, in float64 on the host."""
    return float(sum(np.sum(on_host(loss), dtype=np.float64) for loss in losses.values()))


def check_finite(reading: ModelReading, where: str) -> None:
    """Refuse a loss that is not finite, by site; of a traced model nothing is known yet."""
    losses = jax.tree.leaves(reading.center_losses)
    if any(isinstance(loss, jax.core.Tracer) for loss in losses):
        return
    if not np.isfinite(total_loss(reading.center_losses)):
        bad = {k: int(np.sum(~np.isfinite(on_host(v)))) for k, v in reading.center_losses.items()}
        raise NonFiniteLossError(
            f"The loss {where} is not finite: {bad} non-finite values by observed site. Is "
            "each observation inside the support of its likelihood there? (Labels of K classes "
            "run from 0 to K - 1.)"
        )
