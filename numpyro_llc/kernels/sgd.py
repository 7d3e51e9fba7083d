"""Plain stochastic gradient descent, as a reference: no noise, so no posterior."""

from collections.abc import Callable

from numpyro_llc.kernels._kernel import StochasticKernel
from numpyro_llc.kernels._langevin import LangevinRule
from numpyro_llc.models import InAxes


class SGD(StochasticKernel):
    r"""Stochastic gradient descent on the local potential: ``z ← z - ε/2 ∇U``.

    A reference only: what spreads its draws is the noise of the batches, so the mean of its ``llc``
    is no estimate of λ. Parameters as in :class:`SGLD`.
    """

    def __init__(
        self,
        model: Callable | None = None,
        *,
        step_size: float | None = None,
        batch_size: int | None = None,
        control_variates: bool | None = False,
        in_axes: InAxes | None = None,
    ) -> None:
        rule = LangevinRule(is_corrected=step_size is None, temperature=0.0)
        super().__init__(
            model,
            rule,
            step_size=step_size,
            batch_size=batch_size,
            control_variates=control_variates,
            in_axes=in_axes,
        )
