"""Centres one at a time, from a stacked pytree, a list, an iterator or a folder of Orbax."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np


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

    def __init__(self, given: Any, steps: Any, center_of: Callable | None) -> None:
        self.center_of = center_of or (lambda checkpoint: checkpoint)
        if isinstance(given, str | Path):
            own, self.checkpoints = _orbax(Path(given))
            self.steps: Sequence[Any] | None = own if steps is None else _numbers(steps)
            self.count: int | None = len(own)
        else:
            self.steps = None if steps is None else _numbers(steps)
            self.count, self.checkpoints = _in_memory(given)
        if self.count == 0:
            raise ValueError("`centers` holds no checkpoint.")
        if self.steps is not None and self.count not in (None, len(self.steps)):
            raise ValueError(
                f"`steps` must be as many as `centers`, {self.count}; got {len(self.steps)}."
            )

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        for k, checkpoint in enumerate(self.checkpoints):
            if self.steps is not None and k >= len(self.steps):
                raise ValueError(
                    f"`steps` has {len(self.steps)} numbers, but `centers` goes on after that."
                )
            step = k if self.steps is None else self.steps[k]
            yield float(step), self.center_of(checkpoint)


def _numbers(steps: Any) -> list[float]:
    try:
        return [float(step) for step in steps]
    except (TypeError, ValueError):
        raise TypeError(f"`steps` must hold a number for each checkpoint; got {steps!r}.") from None


def _in_memory(given: Any) -> tuple[int | None, Iterable[Any]]:
    if hasattr(given, "params") and not isinstance(given, Mapping):
        raise TypeError("`centers` is one centre. Call estimate_llc, or give a list of them.")
    if isinstance(given, Mapping):
        return _unstacked(given)
    if isinstance(given, Sequence):
        return len(given), given
    if isinstance(given, Iterable):
        return None, given
    raise TypeError(
        "`centers` must be a dict of stacked arrays, a list or an iterator of centres, or a folder "
        f"of Orbax checkpoints; got {type(given).__name__}."
    )


def _unstacked(given: Mapping[str, Any]) -> tuple[int, Iterable[Any]]:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(given)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(
            "`centers` as a dict must hold arrays stacked along a leading axis of checkpoints; got "
            f"leading axes {sorted(lengths)}."
        )
    (length,) = lengths.pop()
    return length, (jax.tree.map(lambda leaf, k=k: leaf[k], given) for k in range(length))


def _orbax(folder: Path) -> tuple[list[int], Iterable[Any]]:
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

    def checkpoints() -> Iterator[Any]:
        with ocp.CheckpointManager(folder.absolute()) as manager:
            for step in steps:
                yield manager.restore(step, args=ocp.args.StandardRestore())

    return steps, checkpoints()
