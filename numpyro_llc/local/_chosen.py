"""``ChosenLocalization``: a γ that knows why it was chosen."""

from typing import Self


class ChosenLocalization(float):
    """γ as a number, with the reason for its choice.

    Results of a run with it keep the reason in their attribute ``localization_reason``.

    Attributes
    ----------
    reason : str
    """

    reason: str

    def __new__(cls, value: float, reason: str) -> Self:
        made = super().__new__(cls, value)
        made.reason = reason
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.reason


def reason_of(localization: object) -> str | None:
    """Why a γ was chosen, if it knows."""
    return localization.reason if isinstance(localization, ChosenLocalization) else None
