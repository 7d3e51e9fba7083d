"""The density to sample, from a reading of the model and the user's β and γ."""

from typing import Any

import numpy as np

from numpyro_llc._checks import (
    check_localization,
    check_num_data,
    inverse_temperature_or_default,
)
from numpyro_llc.center import total_loss
from numpyro_llc.errors import NonFiniteLossError
from numpyro_llc.models import ModelReading
from numpyro_llc.target import LocalTarget, make_target


def target_of(
    reading: ModelReading, num_data: int | None, inverse_temperature: Any, localization: Any
) -> tuple[LocalTarget, int]:
    """The local target and n; refuses a centre where the loss is not finite."""
    num_data = check_num_data(reading.num_data(num_data))
    if not np.isfinite(total_loss(reading.center_losses)):
        bad = {k: int(np.sum(~np.isfinite(v))) for k, v in reading.center_losses.items()}
        raise NonFiniteLossError(
            f"The loss at `center` is not finite: {bad} non-finite values by observed site. Is "
            "each observation inside the support of its likelihood there?"
        )
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=inverse_temperature_or_default(inverse_temperature, num_data),
        localization=check_localization(localization, reading.center),
        center_losses=reading.center_losses,
    )
    return target, num_data
