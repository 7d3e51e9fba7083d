"""``Draws``, what a run keeps, ``Finished``, how it went, and draws as its folder has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from numpyro_llc.errors import CheckpointError, DataError
from numpyro_llc.inference_data import MonteCarlo, monte_carlo_of_llc
from numpyro_llc.models import Parameters, PyTree
from numpyro_llc.sampling._compiled import Seen
from numpyro_llc.sampling._files import Arrays

_POSITION = "z "


@dataclass(frozen=True)
class Draws:
    """What a run kept, chain axis first: ``[chain, draw, ...]`` NumPy arrays.

    Attributes
    ----------
    excess_loss : float array [chain, draw]
        ``nL(z_t) - nL(z*)`` in nats.
    by_part : float array [chain, draw, part]
        The same by parts of the rows it was evaluated on, if these are not all; else one part.
    contrasts : float array [chain, draw, k]
        Differences of the losses of the data, with random signs.
    statistics : dict of str to array [chain, draw]
    positions : dict
        Unconstrained parameters of the sites that were asked for.
    lowest : float and dict
        ``nL(z) - nL(z*)`` of the lowest point, and its unconstrained parameters; 0 and None where
        no draw was lower than the centre.
    """

    excess_loss: np.ndarray
    by_part: np.ndarray
    contrasts: np.ndarray
    statistics: dict[str, np.ndarray]
    positions: Parameters
    lowest: tuple[float, Parameters | None]

    def part(self, k: int, num_parts: int) -> "Draws":
        """Part `k` of the chains, cut into equal parts, without the lowest point."""

        def cut(leaf: np.ndarray) -> np.ndarray:
            return np.split(leaf, num_parts)[k]

        fields = {name: value for name, value in vars(self).items() if name != "lowest"}
        return Draws(**jax.tree.map(cut, fields), lowest=(0.0, None))


@dataclass(frozen=True)
class Finished:
    """A run that ended.

    Attributes
    ----------
    draws : Draws
    num_warmup, thinning : int
        As given or chosen.
    evaluation_rows : int
        Rows on which the recorded loss was evaluated; 0 for the data as a whole.
    num_rows : int
        Rows of the data; 0 likewise.
    num_steps : int
        Steps of each chain in all.
    seconds, compiling : float
        Wall time, and of it XLA's compilation.
    ended_by : str
        What ended sampling: "num_samples", "relative_error" (reached, and R-hat), a limit ("steps",
        "seconds", "draws"), "interrupt", "non-finite", "output" or "data" (see `failure`).
    ended_at_limit : bool
        Whether an automatic run did not come near its error in the work it may do.
    warmup_was_cut : bool
        Whether the seconds given ended the warm-up before its end.
    failure : CheckpointError, DataError or None
        Why the run could not be written to its folder, or its data not be read, which ended it.
    """

    draws: Draws
    num_warmup: int
    thinning: int
    evaluation_rows: int
    num_rows: int
    num_steps: int
    seconds: float
    compiling: float
    ended_by: str
    ended_at_limit: bool
    warmup_was_cut: bool = False
    failure: CheckpointError | DataError | None = None

    @property
    def evaluation_error(self) -> float:
        """Standard error of the mean loss, in nats, for the rows that were not evaluated."""
        parts = self.draws.by_part.mean(axis=(0, 1))
        if len(parts) < 2 or self.evaluation_rows >= self.num_rows:
            return 0.0
        unseen = 1.0 - self.evaluation_rows / self.num_rows
        return float(np.std(parts, ddof=1) * np.sqrt(len(parts) * unseen))


class NonFiniteDraw(Exception):  # noqa: N818
    """The loss of a chain is not finite: the run stops, with that draw as its last."""


def flat(chunk: Seen) -> Arrays:
    """A chunk as a flat dict of arrays ``[chain, draw, ...]``."""
    arrays = {name: array for name, array in chunk.items() if name != "z"}
    for k, leaf in enumerate(jax.tree.leaves(chunk.get("z", {}))):
        arrays[f"{_POSITION}{k:06d}"] = leaf
    return arrays


def chunk_of(arrays: Arrays, form: jax.tree_util.PyTreeDef) -> Seen:
    """The inverse of :func:`flat`; `form` is the structure of the positions."""
    leaves = [arrays[name] for name in arrays if name.startswith(_POSITION)]
    chunk = {name: arrays[name] for name in arrays if not name.startswith(_POSITION)}
    return {**chunk, "z": jax.tree.unflatten(form, leaves)} if arrays else {}


def collected(chunks: list[Seen], lowest: tuple[float, Parameters | None]) -> Draws:
    """All draws, and the lowest point."""
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *chunks)
    excess, by_part, contrasts = (
        joined.pop(name).astype(np.float64) for name in ("excess_loss", "by_part", "contrasts")
    )
    return Draws(excess, by_part, contrasts, joined, joined.pop("z"), lowest)


def broken_cells(chunks: list[Seen], num_cells: int) -> np.ndarray:
    """Of each cell, whether a draw of one of its chains was not finite, ``[cell]``."""
    finite = [np.isfinite(chunk["excess_loss"]).all(axis=1) for chunk in chunks]
    by_cell = np.stack(finite).reshape(len(finite), num_cells, -1)
    return np.logical_not(by_cell.all(axis=(0, 2)))


def llc_of(chunks: Sequence[Mapping[str, PyTree]], inverse_temperature: float) -> MonteCarlo:
    """λ̂ of the draws in `chunks`, its error with slow directions, and ArviZ's other numbers."""
    excess, penalty = (
        np.concatenate([chunk[name] for chunk in chunks], axis=1, dtype=np.float64)
        for name in ("excess_loss", "penalty")
    )
    return monte_carlo_of_llc(inverse_temperature * excess, penalty)
