"""Did a quick reference learner, boosted trees on the same rows, know more than a fresh critic?"""

from __future__ import annotations

from typing import NamedTuple, final

__all__ = ["Reference"]

#: A difference counts from so many standard errors on.
SURE = 2.0


@final
class Reference(NamedTuple):
    """Boosted trees beside a fresh ratio, on the rows that judge both."""

    #: Log loss of the trees in nats, where each class weighs one half; a constant guess scores log 2.
    log_loss: float
    #: Log loss of the fresh ratio minus that of the trees, on the same rows. Above 0 the trees know more.
    advantage: float
    #: Its standard error, from the rows that judge.
    advantage_se: float

    @property
    def complaint(self) -> str:
        """What is wrong with the fresh ratio if the trees know more by twice the error, or an empty string."""
        if self.advantage <= SURE * self.advantage_se:
            return ""
        return (
            f"Boosted trees on the same rows know more than the fresh ratio: their held-out log loss is "
            f"{self.advantage:.4f} +- {self.advantage_se:.4f} nats lower. Train longer, scale the inputs so that fine "
            "structure has a size near 1, or give a larger network."
        )
