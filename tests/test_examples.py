"""The examples of the gallery, run with small arguments."""

import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
QUIET = ["--no-progress-bar"]
SHORT = [*QUIET, "--num-warmup=500"]


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    plt.close("all")


def example(name):
    """The module of an example, a new one each time."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path):
    """Run an example's ``main``; it must leave a picture."""

    def run_example(name, *arguments):
        picture = tmp_path / f"{name}.png"
        result = example(name).main([*arguments, f"--picture={picture}"])
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 10_000
        return result

    return run_example


def test_volume_scaling_has_the_slope_of_the_learning_coefficient(run):
    table = run("volume_scaling", "--num-points=1000000")
    # 4 errors, and what √ε adds to the slope of w1² w2⁴, V = 2 ε^(1/4) - ε^(1/2), at these ε.
    assert np.all(np.abs(table["slope"] - table["λ"]) < 4 * table["error"] + 0.005)
    assert list(table["Hessian's rank / 2"]) == [0.5, 0.0, 0.0]


@pytest.mark.slow
def test_samplers_are_held_against_the_exact_value(run):
    table = run(
        "samplers",
        "--kernels",
        "nuts",
        "sgd",
        "--num-draws=300",
        "--num-warmup=300",
        "--thinning=5",
        *QUIET,
    )
    assert table.loc["nuts", "exact"] == pytest.approx(0.34734423, rel=1e-6)
    assert abs(table.loc["nuts", "z"]) < 4
    assert table.loc["sgd", "λ̂"] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.slow
def test_saddle_to_saddle_steps_through_the_known_values(run):
    trajectory, table = run(
        "saddle_to_saddle",
        "--num-data=100",
        "--num-steps=8000",
        "--every=8000",
        "--num-samples=1000",
        *SHORT,
    )
    assert list(table["rank"]) == [0, 4]
    assert list(table["λ"]) == [21.5, 29.5]
    assert np.all(np.diff(table["training_loss"]) < 0)
    llc = trajectory["llc"]
    assert llc.sel(truth="center")[1] > llc.sel(truth="center")[0] > 0
    assert llc.sel(truth="data")[0] < -1000  # a saddle


@pytest.mark.slow
def test_superposition_tells_k_gons_apart(run):
    """A feature more counts three parameters more: λ is 8.5 at 5⁺ and 7 at 5."""
    _, table = run(
        "superposition",
        "--num-data=300",
        "--num-steps=10000",
        "--num-checkpoints=2",
        "--relative-error=0.03",
        *SHORT,
    )
    known = dict(zip(table["run"], table["known λ of its end"], strict=True))
    assert (known["5-gon"], known["5⁺-gon"], known["6-gon"]) == (7.0, 8.5, 8.5)
    ends = table.groupby("run").last()
    for name, other in (("5-gon", 8.5), ("5⁺-gon", 7.0)):
        row = ends.loc[name]
        assert abs(row["llc"] - known[name]) < 4 * row["mcse_mean"]
        assert abs(row["llc"] - other) > 4 * row["mcse_mean"]
    error = np.hypot(*ends.loc[["5⁺-gon", "5-gon"], "mcse_mean"])
    difference = ends.loc["5⁺-gon", "llc"] - ends.loc["5-gon", "llc"]
    assert abs(difference - 1.5) < 4 * error
    assert difference > 4 * error


@pytest.mark.slow
def test_ordinality_prints_the_correlation(run):
    table, correlation = run(
        "ordinality",
        "--widths", "3", "3", "3",
        "--ranks", "0", "2",
        "--seeds=1",
        "--num-data=10000",
        "--relative-error=0.1",
        *SHORT,
    )  # fmt: skip
    assert list(table["λ"]) == [3.5, 4.5]
    assert correlation == pytest.approx(1.0)


@pytest.mark.slow
def test_modular_addition_has_a_row_for_each_checkpoint(run):
    trajectories, tables = run(
        "modular_addition",
        "--seeds=2",
        "--modulus=5",
        "--width=16",
        "--num-steps=200",
        "--every=100",
        "--relative-error=0.2",
        *SHORT,
    )
    for trajectory, table in zip(trajectories, tables, strict=True):
        assert list(table["step"]) == [100, 200]
        assert np.isfinite(trajectory["llc"]).all()
        assert (table["llc center"] > 0).all()
        assert table["training accuracy"].between(0, 1).all()


@pytest.mark.slow
def test_flatness_compares_over_seeds(run):
    pytest.importorskip("sklearn")
    table, compared = run(
        "flatness",
        "--seeds=2",
        "--width=4",
        "--num-train=300",
        "--max-steps=2000",
        "--num-steps=50",
        "--relative-error=0.2",
        *SHORT,
    )
    assert list(table["optimizer"]) == ["SGD", "SGD", "SAM", "SAM"]
    own = table.pivot(index="seed", columns="optimizer", values="llc")
    assert compared.loc["llc", "difference"] == pytest.approx((own["SAM"] - own["SGD"]).mean())
    assert compared.loc["llc", "error"] > 0


@pytest.mark.slow
def test_induction_refines_the_network_to_its_layers_and_heads(run):
    (table,), by_data, parts = run(
        "induction",
        "--vocabulary=8",
        "--length=8",
        "--width=8",
        "--heads=1",
        "--steps", "20", "40",
        "--every=20",
        "--train-batch=16",
        "--num-data=64",
        "--num-samples=20",
        "--num-warmup=50",
        "--thinning=2",
        "--seeds=1",
        *QUIET,
    )  # fmt: skip
    assert list(parts["sites"]) == ["layer 0", "layer 1", "head 0.0", "head 1.0"]
    assert parts["num_parameters"].to_numpy().tolist() == [256] * 4
    # With one head a layer is its head: the same parameters, draws and numbers.
    assert parts["llc"].sel(sites="layer 0") == parts["llc"].sel(sites="head 0.0")
    assert parts["llc"].sel(sites="layer 0") != parts["llc"].sel(sites="layer 1")
    assert list(table["step"]) == list(by_data["step"]) == [20, 40]
    assert np.all(table["llc"] > 0)
    assert np.isfinite(by_data["llc"]).all()
    # At first the losses of both kinds of tokens are near that of a guess among all 8.
    assert np.all(abs(table[["first tokens", "repeated tokens"]] - np.log(8)) < 1.0)
    assert table[["previous-token score", "induction score"]].stack().between(0, 1).all()


def test_induction_knows_repeated_words_and_perfect_heads():
    """A sequence by hand, and attention that does nothing but what a score is named after."""
    induction = example("induction")
    tokens = np.array([[5, 1, 6, 2, 5, 1, 6]])
    words = np.array([[0, 0, 1, 1, 0, 0, 1]])
    weights = np.zeros((2, 1, 1, 6, 6))
    weights[0, 0, 0, [1, 3, 5], [0, 2, 4]] = 1.0  # second tokens, on the first
    weights[1, 0, 0, 4, 1] = 0.75  # the repeated 5, on the 1 that came after it
    logits = np.zeros((1, 6, 8))
    logits[0, 4, 1] = 2.0
    induction.transformer = lambda params, tokens: (logits, weights)
    row = induction.measures({"w": np.zeros((1, 1))}, tokens, words).iloc[0]
    assert row["first tokens"] == pytest.approx(np.log(8))
    assert row["repeated tokens"] == pytest.approx(np.log(7 + np.exp(2.0)) - 2.0)
    assert row["previous-token score"] == pytest.approx(1.0)
    assert row["induction score"] == pytest.approx(0.75)
