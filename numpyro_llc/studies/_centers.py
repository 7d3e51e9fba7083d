"""Centres one at a time, from a stacked pytree, a list, an iterator or a folder of Orbax."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from numpyro_llc.errors import warn
from numpyro_llc.models import PyTree


class Centers:
    """The centres of a trajectory, one at a time, each with its step of the training.

    Parameters
    ----------
    given
        See ``llc_trajectory``.
    steps : sequence of numbers, optional
        Step of each; by default the steps of a folder, else 0, 1, 2, ...
    center_of : callable, optional
        From a checkpoint to its centre.

    Attributes
    ----------
    count : int or None
        How many there are, where that is known before.
    """

    def __init__(
        self, given: PyTree, steps: Sequence[float] | None, center_of: Callable | None
    ) -> None:
        if center_of is not None and not callable(center_of):
            raise TypeError(
                "`center_of` must be a function from a checkpoint to its centre; got "
                f"{center_of!r}."
            )
        self.center_of = center_of or (lambda checkpoint: checkpoint)
        self.checkpoints: Iterable[PyTree]
        self.last_one: Callable[[], Iterable[PyTree]]
        if isinstance(given, str | Path):
            own, restored = _orbax(Path(given))
            self.checkpoints, self.last_one = restored(own), partial(restored, own[-1:])
            self.steps: Sequence[float] | None = own if steps is None else _numbers(steps)
            self.count: int | None = len(own)
        else:
            self.steps = None if steps is None else _numbers(steps)
            self.count, self.checkpoints, self.last_one = _in_memory(given)
        if self.count == 0:
            raise ValueError("`centers` holds no checkpoint.")
        if self.steps is not None and self.count not in (None, len(self.steps)):
            raise ValueError(
                f"`steps` must be as many as `centers`, {self.count}; got {len(self.steps)}."
            )

    def last(self) -> PyTree:
        """The last centre, before the first is taken."""
        for checkpoint in self.last_one():
            return self.center_of(checkpoint)
        raise ValueError(
            "`localization='auto'` is chosen at the last checkpoint, which an iterator gives last. "
            "Give `centers` as a list or stacked, or a number, such as "
            "choose_localization(...).localization at one of them."
        )

    def __iter__(self) -> Iterator[tuple[float, PyTree]]:
        k = -1
        for k, checkpoint in enumerate(self.checkpoints):
            if self.steps is not None and k >= len(self.steps):
                raise ValueError(
                    f"`steps` has {len(self.steps)} numbers, but `centers` goes on after that."
                )
            step = k if self.steps is None else self.steps[k]
            yield float(step), self.center_of(checkpoint)
        if self.steps is not None and k + 1 < len(self.steps):
            warn(f"`steps` has {len(self.steps)} numbers, but `centers` ended after {k + 1}.")


def _numbers(steps: Sequence[float]) -> list[float]:
    try:
        numbers = [float(step) for step in steps]
    except (TypeError, ValueError):
        raise TypeError(f"`steps` must hold a number for each checkpoint; got {steps!r}.") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"`steps` must be finite numbers; got {steps!r}.")
    return numbers


def _in_memory(given: PyTree) -> tuple[int | None, Iterable[PyTree], Callable]:
    if hasattr(given, "params") and not isinstance(given, Mapping):
        raise TypeError("`centers` is one centre. Call estimate_llc, or give a list of them.")
    if isinstance(given, Mapping):
        if not all(isinstance(name, str) for name in given):
            raise TypeError(
                "`centers` as a dict must name sites; got keys "
                f"{list(given)}. Pass list(centers.values()), and the keys as `steps`."
            )
        count, centers = _unstacked(given)
        return count, centers, lambda: [jax.tree.map(lambda leaf: leaf[-1], given)]
    if isinstance(given, Sequence):
        return len(given), given, lambda: given[-1:]
    if isinstance(given, Iterable):
        return None, given, lambda: []
    raise TypeError(
        "`centers` must be a dict of stacked arrays, a list or an iterator of centres, or a folder "
        f"of Orbax checkpoints; got {type(given).__name__}."
    )


def _unstacked(given: Mapping[str, PyTree]) -> tuple[int, Iterable[PyTree]]:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(given)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(
            "`centers` as a dict must hold arrays stacked along a leading axis of checkpoints; got "
            f"leading axes {sorted(lengths)}."
        )
    (length,) = lengths.pop()
    return length, (jax.tree.map(lambda leaf, k=k: leaf[k], given) for k in range(length))


_OTHERWISE = "Restore the checkpoints yourself, and pass an iterator of them."


def _orbax(folder: Path) -> tuple[list[int], Callable[[list[int]], Iterator[PyTree]]]:
    if not folder.is_dir():
        raise ValueError(f"`centers` {str(folder)!r} is no folder of Orbax checkpoints.")
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        raise ImportError(
            "`centers` is a folder, which takes Orbax to read: pip install orbax-checkpoint."
        ) from None
    with ocp.CheckpointManager(folder.absolute()) as manager:
        steps = sorted(manager.all_steps())
    if not steps:
        raise ValueError(
            f"`centers` {str(folder)!r} holds no checkpoint: no steps of an Orbax "
            f"CheckpointManager, folders named by numbers, but {sorted(os.listdir(folder))[:5]}. "
            f"{_OTHERWISE}"
        )

    def restored(steps: list[int]) -> Iterator[PyTree]:
        with ocp.CheckpointManager(folder.absolute()) as manager:
            for step in steps:
                try:
                    yield manager.restore(step, args=ocp.args.StandardRestore())
                except (ValueError, KeyError, TypeError, OSError) as error:
                    reason = str(error).splitlines()[0]
                    raise ValueError(
                        f"`centers` {str(folder)!r}: step {step} cannot be restored as one pytree "
                        f"({reason}). {_OTHERWISE}"
                    ) from error

    return steps, restored
