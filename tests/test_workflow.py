"""The page that takes a modeler from MCMC to a comparison, run as it stands."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from numpyro_llc import exact
from numpyro_llc.inference_data import posterior

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "workflow.md").read_text()
NAMES = ["rank 1", "rank 2", "rank 3"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def printed(block):
    """Rows of a table on the page by name, as numbers."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in block.splitlines()]
    return {name: list(map(float, numbers)) for name, *numbers in rows if name in NAMES}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # in ArviZ 0.23
def test_the_page_runs_and_says_what_it_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {}
    for block in blocks("python"):
        exec(block, found)
    plt.close("all")
    table, comparison = found["table"], found["comparison"]
    assert list(table["d/2"]) == [4.0, 8.0, 12.0]
    known = [float(exact.deep_linear_network((4, k, 4), min(k, 2)).value) for k in (1, 2, 3)]
    assert known == [3.5, 6.0, 7.0]
    excess = table["mean"] - known
    for name in NAMES[:2]:  # regular but for rotations: a quadratic loss says what γ takes
        quadratic = found["results"][name].attrs["center_expected_llc"]
        assert abs(table.loc[name, "mean"] - quadratic) < 4 * table.loc[name, "mcse_mean"] + 0.1
        assert -0.6 < quadratic - known[NAMES.index(name)] <= 0.0
    # At finite n λ̂ of the spare factor is lower than λ, by the multiplicity 2 and by γ.
    assert -1.0 < excess["rank 3"] < 4 * table.loc["rank 3", "mcse_mean"]
    llc, free_energies, by_bic = map(printed, [blocks("text")[0], *blocks("text")[1].split("\n\n")])
    for name, (half, mean, error, _) in llc.items():
        assert half == table.loc[name, "d/2"]
        # Where on the valley of rotations and scalings the mode lies depends on the processor.
        assert abs(mean - table.loc[name, "mean"]) < 4 * 2**0.5 * error + 0.3
    assert list(comparison.index) == list(free_energies) == ["rank 2", "rank 3", "rank 1"]
    for name, (energy, _, _, error) in free_energies.items():
        ours = comparison.loc[name, "local_free_energy"]
        assert abs(energy - ours) < 4 * 2**0.5 * error + 0.3 * np.log(150)
    bic = found["nllc"].compare(found["results"], "bic")
    assert list(bic.index) == list(by_bic) == ["rank 2", "rank 1", "rank 3"]
    for name, (value, _) in by_bic.items():
        assert value == pytest.approx(bic.loc[name, "bic"], abs=0.01)
    assert Path("comparison.png").stat().st_size > 5_000
    assert found["axes"].get_xlabel().endswith("minus the local free energy, nats")
    for site in ("inputs", "outputs"):
        ours = posterior(found["results"]["rank 2"])[site]
        theirs = posterior(found["posteriors"]["rank 2"])[site]
        assert ours.dims == theirs.dims
        assert list(ours[ours.dims[-1]].values) == list(theirs[ours.dims[-1]].values)
