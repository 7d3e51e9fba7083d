"""Stochastic-gradient Nosé-Hoover thermostat."""

from collections.abc import Callable

from numpyro_llc._checks import check_positive
from numpyro_llc.kernels._kernel import StochasticKernel
from numpyro_llc.kernels._thermostat import ThermostatRule
from numpyro_llc.models import InAxes


class SGNHT(StochasticKernel):
    r"""Stochastic-gradient Nosé-Hoover thermostat (Ding et al. 2014): a momentum that forgets.

    ``dz = p dt``, ``dp = -∇U dt - ξ p dt + √(2a) dW``, ``dξ = (|p|²/d - 1) dt``, in the symmetric
    splitting of Leimkuhler & Shang (2016). With a momentum, a chain crosses flat directions in a
    number of steps that grows with the root of the condition number, not with the number itself.

    Parameters
    ----------
    model : callable, optional
        What ``localize`` returned, or any NumPyro model, whose posterior is then sampled.
        ``estimate_llc`` puts its own in its place.
    step_size : float, optional
        ε, the time step: stable below ``2 / √(largest curvature of U)``. A number is kept as it is;
        without one, it is found in the warm-up from the curvature along the chain and the gradient
        noise, and each step carries the friction ``ε²/2 V p`` that balances the noise V of the
        gradient (Chen, Fox & Guestrin 2014).
    batch_size : int, optional
        Rows of a minibatch; the full data if left out.
    friction : float, optional
        a > 0. ``2 √γ`` and a fiftieth of the highest frequency, if left out.
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
        friction: float | None = None,
        control_variates: bool | None = None,
        in_axes: InAxes | None = None,
    ) -> None:
        if friction is not None:
            friction = check_positive("friction", friction, meaning="It damps the momentum.")
        rule = ThermostatRule(friction)
        super().__init__(
            model,
            rule,
            step_size=step_size,
            batch_size=batch_size,
            control_variates=control_variates,
            in_axes=in_axes,
            friction=friction,
        )
