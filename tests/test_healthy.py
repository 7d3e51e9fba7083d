"""No false alarm: runs of the zoo at the defaults, in which ``diagnose`` finds nothing."""

import jax
import pytest

import numpyro_llc as nllc

pytestmark = pytest.mark.slow

HEALTHY = [
    *(("nuts", name) for name in ("square_feature", "fourth_power", "sixth_power", "circle")),
    *(("nuts", name) for name in ("normal_mixture", "poisson_mixture", "tanh_unit", "relu_unit")),
    *(("nuts", name) for name in ("relu_unit_at_1_1", "sum_of_two", "square_plus_fourth")),
    *(("nuts", name) for name in ("product_of_two", "fourth_plus_sixth")),
    *(("sgld", name) for name in ("fourth_power", "circle", "product_of_two", "relu_unit")),
    *(("sgnht", name) for name in ("sum_of_two", "fourth_plus_sixth", "tanh_unit")),
]


def of_zoo(kernel, name):
    p = nllc.zoo.load(name)
    settings = {"center": p.center, "num_data": p.num_data, "kernel": kernel}
    return nllc.estimate_llc(
        jax.random.key(0), p.model, p.model_args, **settings, progress_bar=False
    )


@pytest.mark.parametrize(("kernel", "name"), HEALTHY)
def test_healthy_runs_at_the_defaults_have_no_findings(kernel, name):
    assert nllc.diagnose(of_zoo(kernel, name)).empty


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_lambda_of_zero_deserves_its_finding():
    """The loss is constant around the centre: all of λ̂ is of the next order, not Gamma's law."""
    checks = nllc.diagnose(of_zoo("sgld", "dead_relu_unit"), all_checks=True)
    assert checks.loc["constant_loss", "found"]
    assert checks.loc["gamma_law", "value"] > 1.2  # 1.43 is exact
