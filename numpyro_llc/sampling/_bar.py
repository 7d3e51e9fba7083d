"""The progress bar: the steps that were done, and λ̂ so far."""

import sys
import time
from collections.abc import Callable

import numpy as np
from tqdm.auto import tqdm

from numpyro_llc.inference_data import MonteCarlo

MOST_SHARE = 0.01
"""Of the time since the bar was made, the part that goes into telling λ̂."""
SECONDS_BETWEEN = 2.0
"""Least time from one telling to the next."""
FIRST_COST = 0.03
"""Seconds that the first telling is taken to cost: it comes after three seconds."""


class Bar:
    """A bar of tqdm, in a terminal or a notebook, with λ̂, its Monte Carlo error and R-hat.

    They are computed on the host from the draws so far, no more often than ``MOST_SHARE`` of the
    time allows.

    Parameters
    ----------
    is_shown : bool
    has_llc : bool
        Whether the run has one λ̂; of a run of many cells only steps are shown.
    clock : callable
        Seconds, as ``time.perf_counter``.
    """

    def __init__(
        self,
        *,
        is_shown: bool,
        has_llc: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.bar = tqdm(disable=not is_shown, unit="step")
        self.has_llc, self.clock, self.began = is_shown and has_llc, clock, clock()
        self.last, self.spent, self.cost = -np.inf, 0.0, FIRST_COST

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if not self.bar.disable:
            tqdm.write(text, file=sys.stderr)

    def describe(self, phase: str, total: int | None) -> None:
        """Name the phase, and the steps that there will be at its end."""
        self.bar.set_description(phase, refresh=False)
        self.bar.total = total

    def update(self, steps: int) -> None:
        """Count more steps."""
        self.bar.update(steps)

    def tell(self, estimate: Callable[[], MonteCarlo], *, is_last: bool = False) -> None:
        """Show what `estimate` gives for λ̂, if it is time; at the end (`is_last`) it may be sooner.

        The next telling costs as much again, it is taken, and comes when it is within the share.
        """
        now = self.clock()
        is_early = now - self.last < SECONDS_BETWEEN and not is_last
        is_dear = self.spent + self.cost > MOST_SHARE * (now - self.began)
        if not self.has_llc or is_early or is_dear:
            return
        self.show(estimate())
        self.last = self.clock()
        self.cost = self.last - now
        self.spent += self.cost

    def show(self, llc: MonteCarlo) -> None:
        """Show λ̂, where its error is known."""
        if self.has_llc and np.isfinite(llc.error):
            self.bar.set_postfix_str(text_of(llc))

    def close(self) -> None:
        """End the bar; what it shows stays."""
        self.bar.close()


def text_of(llc: MonteCarlo) -> str:
    """λ̂ with its Monte Carlo error and R-hat, as the bar shows them."""
    return f"λ̂ {llc.mean:.4g} ± {llc.error:.2g}, R-hat {llc.r_hat:.3f}"
