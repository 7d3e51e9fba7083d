"""Results that hold a dataset."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xarray as xr


@dataclass(frozen=True, eq=False)
class DatasetResult:
    """A dataset, and what can be read from it; its variables are ``result["name"]``.

    xarray advises to hold a dataset and not to inherit from one. Whatever xarray does is done to
    `data`, and the class of what comes out is a result again: so is that of a file read back.

    Attributes
    ----------
    data : xarray.Dataset
        All that the result says, its attrs numbers and strings.
    """

    data: xr.Dataset

    def __getitem__(self, name: str) -> xr.DataArray:
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return map(str, self.data)

    @property
    def attrs(self) -> dict[str, Any]:
        """Those of `data`."""
        return self.data.attrs


def dataset_of(result: DatasetResult | xr.Dataset) -> xr.Dataset:
    """The dataset of a result, or the dataset that was given."""
    return result.data if isinstance(result, DatasetResult) else result
