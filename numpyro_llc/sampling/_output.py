"""The folder of ``output=``: whose it is, what it is of, and who writes to it."""

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Self

import jax

from numpyro_llc.errors import CheckpointError
from numpyro_llc.sampling._files import remove_parts, whole_file, write_bytes
from numpyro_llc.sampling._identity import plain
from numpyro_llc.sampling._lock import Lock, locked_for_a_moment

FORMAT = 6
"""Of what is on disk; raised where the same settings would go on to other draws."""
SETTINGS = "settings.json"
_RESULTS = (
    "calibration.csv",
    "state.npz",
    "sweep.nc",
    "trajectory.jsonl",
    "trajectory.nc",
    "draws-0.npz",
)
_CAUSES = ("x64", "model", "arguments", "data")
"""Settings that change others with them; they are compared first."""


def check_output(output: object) -> Path | None:
    """The path of `output`, or an error if no folder can be there; nothing is made."""
    if output is None:
        return None
    if not isinstance(output, str | os.PathLike) or isinstance(os.fspath(output), bytes):
        raise TypeError(f"`output` must be the path of a folder; got {output!r}.")
    if not os.fspath(output).strip() or "\0" in os.fspath(output):
        raise ValueError(f"`output` must be the path of a folder; got {output!r}. Name one.")
    path = Path(output)
    if jax.process_count() > 1:  # of several only the first need see the disk
        return path
    for place in (path, *path.parents):
        if os.path.lexists(place) and not os.path.isdir(place):
            raise CheckpointError(
                f"`output` must be a folder or a place where one can be made; got {str(path)!r}, "
                f"where {str(place)!r} is no folder. Choose another."
            )
    return path


class OutputFolder:
    """A folder of results, which no other process writes to until it is closed.

    Parameters
    ----------
    output : path
        Made if absent.
    settings : dict
        What its results depend on, by name. A folder that was begun with others is refused.
    what : str
        What its results are: "run", "sweep", "trajectory", ...
    shared : bool
        Whether several processes may work in it; each change is then made under its own lock.
    """

    def __init__(
        self,
        output: str | Path,
        settings: Mapping[str, object],
        *,
        what: str,
        shared: bool = False,
    ) -> None:
        path = check_output(output)
        assert path is not None
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"`output` must be a folder or a place where one can be made; got {str(path)!r} "
                f"({error.strerror}). Choose another."
            ) from error
        self.path = path
        self.lock = None if shared else Lock(path)
        try:
            with self.change():
                _check_settings(path, {"what": what, "format": FORMAT, **plain(settings)})
            if self.can_write and not shared:
                remove_parts(path)
        except OSError as error:  # what is there cannot be looked at
            self.close()
            raise CheckpointError(
                f"`output` {str(path)!r} cannot be read ({error.strerror}). Choose another folder."
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def can_write(self) -> bool:
        """Whether files can be made in it, as far as is known."""
        return self.lock is None or self.lock.number is not None

    def change(self) -> AbstractContextManager[None]:
        """Under which files that other processes change too are read and written."""
        return nullcontext() if self.lock is not None else locked_for_a_moment(self.path)

    def check_writable(self) -> None:
        """Refuse a folder that can be read alone, before anything is computed for it."""
        if self.lock is not None and self.lock.number is None:
            with whole_file(self.lock.path) as part:
                part.touch()

    def close(self) -> None:
        """Let other processes in."""
        if self.lock is not None:
            self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _check_settings(folder: Path, settings: dict[str, object]) -> None:
    """Compare with ``settings.json`` in the folder, by name; written if there is none."""
    path = folder / SETTINGS
    if not path.exists():
        _refuse_orphans(folder)
        write_bytes(path, json.dumps(settings, indent=1).encode())
        return
    try:
        before = dict(json.loads(path.read_bytes()))
    except (OSError, TypeError, ValueError):
        raise CheckpointError(
            f"`output` {str(folder)!r} holds a settings.json that cannot be read, so its "
            "results cannot be identified. Choose another folder, or empty this one."
        ) from None
    _check_kind(folder, before, settings)
    causes = [name for name in _CAUSES if name in settings]
    for name in (*causes, *sorted(before.keys() | settings.keys())):
        if before.get(name) != settings.get(name):
            raise CheckpointError(
                f"`output` {str(folder)!r} holds a {settings['what']} with another `{name}`: "
                f"{before.get(name)}; got {settings.get(name)}. Choose another folder."
            )


def _check_kind(folder: Path, before: dict[str, object], settings: dict[str, object]) -> None:
    """Refuse a folder of other results, of another format, or of something else."""
    what, version = before.get("what"), before.get("format")
    if version is None:
        raise CheckpointError(
            f"`output` {str(folder)!r} holds a settings.json that this version of numpyro_llc did "
            "not write. Choose another folder."
        )
    if version != FORMAT:
        raise CheckpointError(
            f"`output` {str(folder)!r} holds results in format {version}; this version of "
            f"numpyro_llc goes on from format {FORMAT}. Go on with the version that began it, or "
            "choose another folder."
        )
    if what != settings["what"]:
        raise CheckpointError(
            f"`output` {str(folder)!r} holds a {what}, not a {settings['what']}. Choose another "
            "folder."
        )


def _refuse_orphans(folder: Path) -> None:
    """Refuse results whose settings are lost; a file without content holds none."""
    held = [folder / name for name in _RESULTS]
    if found := [one.name for one in held if one.is_file() and one.stat().st_size]:
        raise CheckpointError(
            f"`output` {str(folder)!r} holds {found[0]}, but no settings.json, so its "
            "results cannot be identified. Choose another folder, or empty this one."
        )
