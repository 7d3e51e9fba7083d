"""Warnings point at the line of the user; errors that reach users have public names."""

import warnings
from dataclasses import dataclass

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from metropolis import Metropolis

import numpyro_llc as nllc
from numpyro_llc.errors import LLCWarning
from numpyro_llc.inference_data import inference_data, labelled
from numpyro_llc.sampling import check_schedule


def normal(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)


def one_call_deep():
    """`check_schedule` calls what looks for devices, of which there is one."""
    return lambda: check_schedule(1, 1, 2, 1, "parallel", False)


def two_calls_deep():
    """`summary` calls what looks at the estimators."""
    still = {"posterior": labelled({"llc": np.ones((2, 50))}, lead=("chain", "draw"))}
    attrs = {"localization": 1.0, "inverse_temperature": 0.5, "num_data": 100}
    result = inference_data(still, attrs)
    return lambda: nllc.summary(result, estimators="mean")


def three_calls_deep():
    """`estimate_llc` calls what makes a result, which calls what puts it together."""
    y = np.linspace(-1.0, 1.0, 20)
    key, center = jax.random.key(0), {"w": 0.0}
    lengths = {"kernel": Metropolis(0.5), "num_warmup": 20, "num_samples": 8, "num_chains": 2}
    return lambda: nllc.estimate_llc(
        key, normal, (y,), center=center, progress_bar=False, **lengths
    )


@pytest.mark.parametrize("make", [one_call_deep, two_calls_deep, three_calls_deep])
def test_a_warning_points_at_the_line_of_the_caller(make):
    call = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    ours = [one for one in caught if issubclass(one.category, LLCWarning)]
    assert ours
    for one in ours:
        assert one.filename == __file__
        assert one.lineno == call.__code__.co_firstlineno


def test_errors_that_reach_users_are_public():
    for name in (
        "NonFiniteCenterError",
        "NonFiniteLossError",
        "TrajectoryError",
        "CheckpointError",
    ):
        assert issubclass(getattr(nllc, name), Exception)
        assert name in nllc.__all__


def test_a_center_that_is_not_finite_raises_by_that_name():
    with pytest.raises(nllc.NonFiniteCenterError, match="holds NaN"):
        nllc.localize(normal, center={"w": np.nan}).read((np.zeros(5),))


@dataclass(frozen=True)
class Initialised:
    """A model with a module that makes its parameters where none are given, and fails at it."""

    error: type[Exception]

    def __call__(self, y):
        params = numpyro.param("net$params")
        if params is None:
            raise self.error("no input")
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(params["a"] + params["b"], 1.0), obs=y)


def test_only_a_module_that_lacks_its_inputs_goes_unchecked():
    center, data = {"net$params": {"a": 0.0, "b": 0.0}}, (np.zeros(5),)
    reading = nllc.localize(Initialised(TypeError), center=center).read(data)
    assert reading.program.parameters == ("net$params",)
    with pytest.raises(ZeroDivisionError, match="no input"):
        nllc.localize(Initialised(ZeroDivisionError), center=center).read(data)
