"""Stochastic-gradient Langevin dynamics."""

from collections.abc import Callable

from numpyro_llc.kernels._kernel import StochasticKernel
from numpyro_llc.kernels._langevin import LangevinRule
from numpyro_llc.models import InAxes


class SGLD(StochasticKernel):
    r"""Stochastic-gradient Langevin dynamics (Welling & Teh 2011): ``z ← z - ε/2 ∇U + √ε ξ``.

    Parameters
    ----------
    model : callable, optional
        What ``localize`` returned, or any NumPyro model, whose posterior is then sampled.
        ``estimate_llc`` puts its own in its place.
    step_size : float, optional
        ε. A number is kept as it is, with the plain Euler step of the paper, whose stationary
        variance on a quadratic of curvature A is ``1 / (A (1 - εA/4))``. Without one, the step is
        found in the warm-up from the largest curvature along the chain and the gradient noise, and
        the noise is shared between steps (Leimkuhler & Matthews 2013), which is exact on quadratics
        and of second order otherwise.
    batch_size : int, optional
        Rows of a minibatch; the full data if left out.
    control_variates : bool, optional
        Whether the gradient is ``∇U_B(z) - ∇U_B(z*) + ∇U(z*)``; where it lowers the noise, if left
        out.
    in_axes : sequence or dict, optional
        Which axis of each argument holds the rows, as in :func:`jax.vmap`, where that is in doubt.
    """

    def __init__(
        self,
        model: Callable | None = None,
        *,
        step_size: float | None = None,
        batch_size: int | None = None,
        control_variates: bool | None = None,
        in_axes: InAxes | None = None,
    ) -> None:
        rule = LangevinRule(is_corrected=step_size is None)
        super().__init__(
            model,
            rule,
            step_size=step_size,
            batch_size=batch_size,
            control_variates=control_variates,
            in_axes=in_axes,
        )
