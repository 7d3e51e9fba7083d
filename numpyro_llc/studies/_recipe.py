"""What the plans of many rows are made from, here or in another process."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc.local import LocalizedModel
from numpyro_llc.models import Arguments, PyTree
from numpyro_llc.sampling import Plan, Schedule, check_schedule, make_plan


@dataclass(frozen=True)
class Recipe:
    """A localized model, its arguments and a schedule, as ``make_plan`` takes them.

    It can be pickled: devices stay behind, and chains that run in parallel then use those of the
    process that they come to.
    """

    local: LocalizedModel
    model_args: Arguments
    model_kwargs: Mapping[str, object] | None
    schedule: Schedule

    def plan(self, kernel: MCMCKernel, center: PyTree = None) -> Plan:
        """The plan at the centre of the localized model, or at another."""
        local = self.local if center is None else replace(self.local, center=center)
        return make_plan(local, self.model_args, self.model_kwargs, kernel, self.schedule)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "schedule": self.schedule._replace(mesh=None)}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.__dict__["schedule"] = check_schedule(*self.schedule)
