"""A target from a model, as the engine makes it: what many tests start from."""

from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model, with_batches


def target_of(model, args, center, *, beta=1.0, gamma=1.0, batches=False, **factors):
    """The target of `model` at `center`; `gamma` is a number, or a dict by site."""
    reading = read_model(model, args, None, center=center, **factors)
    by_site = gamma if isinstance(gamma, dict) else dict.fromkeys(reading.center, gamma)
    return make_target(
        with_batches(reading) if batches else reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=beta,
        localization=by_site,
    )
