"""``localization="auto"``: γ as ``choose_localization`` chooses it, once for a folder."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import jax
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import is_automatic
from numpyro_llc.errors import CheckpointError
from numpyro_llc.local import ChosenLocalization, LocalizedModel
from numpyro_llc.models import Arguments, PyTree, Stream, without_stream
from numpyro_llc.sampling import damaged, fingerprint, write_bytes
from numpyro_llc.studies._localization import choose_localization

FILE = "localization.json"
"""γ and its reason in the folder of a run: the same call again goes on with the same γ."""
KEY_OF_CHOICE = 0x6761
"""What is folded into the key of a run: a γ that is given instead leaves its draws as they are."""


def with_chosen_localization(
    rng_key: jax.Array,
    local: LocalizedModel,
    model_args: Arguments,
    model_kwargs: Mapping[str, object] | None,
    output: Path | None,
    *,
    center: Callable[[], PyTree],
    kernel: str | MCMCKernel | None,
    batch_size: int | None,
    num_warmup: int | None,
    num_samples: int | None,
    num_chains: int,
    progress_bar: bool,
) -> LocalizedModel:
    """The model with a number for ``localization="auto"``, else as it is.

    `center` gives the centre to choose at. What an earlier call wrote into the folder `output` is
    read, and nothing is chosen again.
    """
    if not is_automatic(local.localization):
        return local
    if jax.process_count() > 1:
        raise ValueError(
            "`localization='auto'` chooses γ in one process, and there are "
            f"{jax.process_count()}. Call choose_localization in a process of its own, and give "
            "the number that it returns."
        )
    path = None if output is None else output / FILE
    at_center = replace(local, center=center())
    rows = model_args.num_data if isinstance(model_args, Stream) else None
    data = without_stream(model_args), model_kwargs, rows
    mark = "" if path is None else fingerprint(rng_key, at_center.center, data, local.truth)
    gamma = None if path is None else _read(path, mark)
    if gamma is None:
        gamma = choose_localization(
            jax.random.fold_in(rng_key, KEY_OF_CHOICE),
            at_center,
            model_args,
            model_kwargs,
            kernel=kernel,
            batch_size=batch_size,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_chains,
            progress_bar=progress_bar,
        ).localization
        if path is not None:
            _write(path, gamma, mark)
    return replace(local, localization=gamma)


def _read(path: Path, mark: str) -> ChosenLocalization | None:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        gamma = ChosenLocalization(float(known["localization"]), str(known["reason"]))
        of = known["of"]
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise damaged(path, error) from error
    if of != mark:
        raise CheckpointError(
            f"`output` {str(path.parent)!r} holds a γ that was chosen with another key, centre or "
            "data. Choose another folder."
        )
    return gamma


def _write(path: Path, gamma: ChosenLocalization, mark: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"`output` must be a folder or a place where one can be made; got {str(path.parent)!r} "
            f"({error.strerror}). Choose another."
        ) from error
    known = {"localization": float(gamma), "reason": gamma.reason, "of": mark}
    write_bytes(path, json.dumps(known).encode())
