"""Ladders without a sampler: draws of each rung from its exact density."""

import numpy as np
import xarray as xr

from numpyro_llc.evidence import TemperatureLadder

CHAINS = 4


def ladder_of(betas, excess, penalty, *, prior_potential=None, center_losses=(0.0,), **attrs):
    """What ``temperature_ladder`` returns, of these draws ``[rung, chain, draw]``.

    Of draws ``[prior, rung, chain, draw]`` it is what ``prior="both"`` returns.
    """
    dims = ("inverse_temperature", "chain", "draw")
    coords = {"inverse_temperature": betas}
    if is_both := np.ndim(excess) == 4:
        dims, coords = ("prior", *dims), {"prior": ["local", "model"], **coords}
    variables = {"excess_loss": (dims, excess), "penalty": (dims, penalty)}
    if prior_potential is not None:
        variables["prior_potential"] = (dims, prior_potential)
    losses = np.asarray(center_losses, float)
    known = {"num_data": 100, "num_parameters": 1, "center_loss": losses.sum()}
    known["prior"] = "both" if is_both else "local"
    return TemperatureLadder(
        xr.Dataset(
            {
                **variables,
                "center_losses": ("datum", losses),
                "weight": ("datum", np.ones(losses.size)),
            },
            coords=coords,
            attrs={**known, **attrs},
        )
    )


def quantiles(density, low, high, *, draws=1000, seed=0):
    """Draws ``[chain, draw]`` of a density on an interval, without chance but for their order."""
    grid = np.linspace(low, high, 40_001)
    values = density(grid)
    below = np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1]))])
    count = CHAINS * draws
    points = np.interp((np.arange(count) + 0.5) / count, below / below[-1], grid)
    return np.random.default_rng(seed).permutation(points).reshape(CHAINS, draws)
