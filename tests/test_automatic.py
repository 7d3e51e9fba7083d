"""``localization="auto"``: what ``choose_localization`` says, once for a folder or a trajectory."""

import jax
import numpy as np
import pytest
import regression
from metropolis import METROPOLIS

import numpyro_llc as nllc
from numpyro_llc.local import ChosenLocalization
from numpyro_llc.studies import _automatic, _sweep

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")  # runs are short
DATA = regression.X, regression.Y
CENTERS = [{"w": regression.OLS + shift} for shift in (0.0, 0.1)]
SHORT = {"kernel": METROPOLIS, "num_warmup": 30, "num_samples": 40, "progress_bar": False}
KEY = jax.random.key(0)


class Choice:
    """Stands for ``choose_localization``, and keeps what it was asked."""

    localization = ChosenLocalization(3.0, "γ = 3. It is so.")

    def __init__(self):
        self.asked, self.keys = [], []

    def __call__(self, rng_key, local, *args, **settings):
        self.asked.append((local, args, settings))
        self.keys.append(rng_key)
        return self


@pytest.fixture
def chooser(monkeypatch):
    stub = Choice()
    monkeypatch.setattr(_automatic, "choose_localization", stub)
    return stub


def estimate(localization, rng_key=KEY, **settings):
    center = CENTERS[0]
    return nllc.estimate_llc(
        rng_key,
        regression.model,
        DATA,
        center=center,
        localization=localization,
        **SHORT,
        **settings,
    )


def trajectory(localization="auto", centers=CENTERS, **settings):
    local = nllc.localize(regression.model, center=None, localization=localization)
    return nllc.llc_trajectory(KEY, local, centers, DATA, **SHORT, **settings)


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


@pytest.mark.slow
def test_gamma_is_that_of_choose_localization_and_the_reason_is_kept():
    found = estimate("auto")
    choice = nllc.choose_localization(
        jax.random.fold_in(KEY, _automatic.KEY_OF_CHOICE),
        regression.model,
        DATA,
        center=CENTERS[0],
        **SHORT,
    )
    assert found.attrs["localization"] == choice.localization
    assert found.attrs["localization_reason"] == choice.reason
    np.testing.assert_array_equal(llc(found), llc(estimate(float(choice.localization))))


def test_a_folder_goes_on_with_the_gamma_that_was_chosen(chooser, tmp_path):
    first, again = (estimate("auto", output=tmp_path) for _ in range(2))
    assert len(chooser.asked) == 1
    local, (args, _), settings = chooser.asked[0]
    assert local.center is CENTERS[0]
    assert args is DATA
    assert (settings["kernel"], settings["num_samples"]) == (METROPOLIS, 40)
    assert chooser.keys == [jax.random.fold_in(KEY, _automatic.KEY_OF_CHOICE)]
    for one in (first, again):
        assert one.attrs["localization"] == 3.0
        assert one.attrs["localization_reason"] == "γ = 3. It is so."
    np.testing.assert_array_equal(llc(first), llc(again))
    with pytest.raises(nllc.CheckpointError, match="γ that was chosen with another key, centre or"):
        estimate("auto", output=tmp_path, rng_key=jax.random.key(99))
    (tmp_path / _automatic.FILE).write_text("{}")
    with pytest.raises(nllc.CheckpointError, match=r"localization.json is damaged"):
        estimate("auto", output=tmp_path)


def test_a_trajectory_has_one_gamma_for_all_checkpoints_and_goes_on_with_it(chooser, tmp_path):
    first, again = (trajectory(output=tmp_path) for _ in range(2))
    assert len(chooser.asked) == 1
    for table in (first, again):
        assert table.attrs["localization"] == 3.0
        assert table.attrs["localization_reason"] == "γ = 3. It is so."
    np.testing.assert_array_equal(first["llc"], trajectory(3.0)["llc"])
    np.testing.assert_array_equal(again["llc"], first["llc"])


class Stop(Exception):  # noqa: N818
    """Ends a call once γ was asked for."""


@pytest.mark.parametrize("truth", [None, ("data", "center")])
@pytest.mark.parametrize("form", ["list", "stacked"])
def test_it_is_chosen_at_the_last_checkpoint(monkeypatch, form, truth):
    def stop(rng_key, local, *args, **settings):
        np.testing.assert_array_equal(local.center["w"], CENTERS[-1]["w"])
        assert local.truth == ("data" if truth is None else "center")
        raise Stop

    monkeypatch.setattr(_automatic, "choose_localization", stop)
    stacked = {"w": np.stack([center["w"] for center in CENTERS])}
    with pytest.raises(Stop):
        trajectory(centers=CENTERS if form == "list" else stacked, truth=truth)


def test_the_last_checkpoint_of_an_iterator_is_not_known(chooser):
    with pytest.raises(ValueError, match="an iterator gives last. .*as a list"):
        trajectory(centers=iter(CENTERS))


def test_elsewhere_a_number_is_wanted_and_other_words_mean_nothing():
    local = nllc.localize(regression.model, center=CENTERS[0], localization="auto")
    for door in (
        lambda: nllc.sweep(KEY, local, DATA, inverse_temperature=[0.1, 0.2], **SHORT),
        lambda: nllc.refined_llc(KEY, local, DATA, sites={"all": None}, **SHORT),
        lambda: local(*DATA),
    ):
        with pytest.raises(ValueError, match="`localization='auto'` is for estimate_llc and llc_"):
            door()
    with pytest.raises(TypeError, match="`localization`"):
        nllc.localize(regression.model, center=CENTERS[0], localization="automatic")


def test_ctrl_c_while_gamma_is_chosen_chooses_nothing(monkeypatch, tmp_path):
    def stopped(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(_sweep, "run_group", stopped)
    with (
        pytest.warns(nllc.LLCWarning, match="The sweep was interrupted"),
        pytest.raises(KeyboardInterrupt),
    ):
        estimate("auto", output=tmp_path)
    assert not (tmp_path / _automatic.FILE).exists()
