"""Random layers whose product has a given rank."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

Layers = list[np.ndarray]
Detour = tuple[np.ndarray, np.ndarray]


def generator(name: str, seed: int | np.random.Generator) -> np.random.Generator:
    """A NumPy generator of a seed, or the one given."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"`{name}` must be an integer of at least 0 or a numpy.random.Generator; got {seed!r}."
        ) from None


def product(layers: Sequence[np.ndarray]) -> np.ndarray:
    """``W_L ... W_1``."""
    total = layers[0]
    for layer in layers[1:]:
        total = layer @ total
    return total


def rank_of(layers: Sequence[np.ndarray]) -> int:
    """Rank of the product of layers whose frames match and whose singular values are 0 or ≥ 0.5.

    A product that is zero is so up to rounding only, so that a relative threshold would not do.
    """
    return int(np.linalg.matrix_rank(product(layers), tol=0.5 ** (len(layers) + 1)))


def straight(widths: Sequence[int]) -> Iterator[Detour]:
    """No detour in any layer."""
    for _ in widths[1:]:
        yield np.array([], int), np.array([], int)


def detours(rng: np.random.Generator, widths: Sequence[int], rank: int) -> Iterator[Detour]:
    """For each layer, which spare directions of its input it takes to which of its output.

    A direction is spare if the true map does not use it; each layer has ``width - rank``. As many
    as drawn, up to all, but none leads from the input of the network to its output: at a random
    layer, all that come from the input end.
    """
    spare = np.asarray(widths) - rank
    last = rng.integers(1, len(widths))
    from_input = np.ones(spare[0], bool)
    for layer in range(1, len(widths)):
        allowed = np.flatnonzero(~from_input | (layer != last))
        count = rng.integers(min(len(allowed), spare[layer]) + 1)
        sources = rng.permutation(allowed)[:count]
        targets = rng.permutation(spare[layer])[:count]
        yield sources, targets
        reached = np.zeros(spare[layer], bool)
        reached[targets] = from_input[sources]
        from_input = reached


def random_layers(
    rng: np.random.Generator, widths: Sequence[int], rank: int, by_layer: Iterable[Detour]
) -> Layers:
    """Layers in random orthogonal frames, with singular values uniform in [0.5, 1.5].

    The first `rank` directions of each frame lead on to the next; the detours come on top.
    """
    frames = [np.linalg.qr(rng.normal(size=(width, width)))[0] for width in widths]
    layers = []
    for before, after, (sources, targets) in zip(frames, frames[1:], by_layer, strict=False):
        inputs = before[:, np.r_[:rank, rank + sources]]
        outputs = after[:, np.r_[:rank, rank + targets]]
        layers.append(outputs * rng.uniform(0.5, 1.5, outputs.shape[1]) @ inputs.T)
    return layers
