"""Names of variables and dimensions, all different, as netCDF and Zarr allow them."""

import itertools
import unicodedata
from collections.abc import Iterable


def variable_name(site: str) -> str:
    """A site's or plate's name as netCDF and Zarr allow it: ``net/Dense_0`` is ``net.Dense_0``."""
    return unicodedata.normalize("NFC", site.replace("/", "."))


def variable_names(sites: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Variables of sites, all different: beside ``y.1``, which stays, ``y/1`` is ``y.1_2``."""
    free, sites = FreeNames(taken), list(sites)
    unchanged_first = sorted(sites, key=lambda site: variable_name(site) != site)
    names = {site: free.next(variable_name(site)) for site in unchanged_first}
    return {site: names[site] for site in sites}


class FreeNames:
    """Names that are not taken yet."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    def next(self, wanted: str) -> str:
        """The name that is wanted, or with the first number behind it that makes it free."""
        names = itertools.chain([wanted], (f"{wanted}_{k}" for k in itertools.count(2)))
        found = next(name for name in names if name not in self.taken)
        self.taken.add(found)
        return found
