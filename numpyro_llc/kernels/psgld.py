"""SGLD with a diagonal preconditioner."""

from collections.abc import Callable

from numpyro_llc.kernels._kernel import StochasticKernel
from numpyro_llc.kernels._langevin import LangevinRule
from numpyro_llc.models import InAxes


class PSGLD(StochasticKernel):
    r"""SGLD with a diagonal preconditioner: ``z ← z - ε/2 G ∇U + √ε G^½ ξ``.

    ``G_j = 1 / E[(∂_j U)²]``, a running mean over the warm-up and over the chains, then frozen, so
    that the target stays the target (the adaptive G of Li, Chen, Carlson & Carin 2016 moves it).
    In equilibrium ``E[(∂_j U)²] = E[∂_j² U]``: G is the inverse of the mean diagonal curvature
    where the chains go.

    Parameters
    ----------
    model : callable, optional
        What ``localize`` returned, or any NumPyro model, whose posterior is then sampled.
        ``estimate_llc`` puts its own in its place.
    step_size : float, optional
        ε, in units of the metric: of order 1. As in :class:`SGLD` otherwise.
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
        rule = LangevinRule(is_corrected=step_size is None, has_metric=True)
        super().__init__(
            model,
            rule,
            step_size=step_size,
            batch_size=batch_size,
            control_variates=control_variates,
            in_axes=in_axes,
        )
