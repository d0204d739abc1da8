"""A critic's output as one number a row, or an error that says what it is instead."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from pyro_gan._typing import Critic

__all__ = ["critic_scores"]


def critic_scores(
    critic: Critic, x: Float[Tensor, "batch *event"], **context: Tensor
) -> Float[Tensor, " batch"]:
    """Return a critic's raw scores as one number a row.

    Args:
        critic: Any callable on data.
        x: Data, `(batch, *event)`.
        **context: Passed on to the critic.

    Returns:
        `(batch,)`.

    Raises:
        ValueError: if the output is no tensor, or its shape is neither `(batch,)` nor `(batch, 1, ..., 1)`.
    """
    output = critic(x, **context)
    if not isinstance(output, Tensor):
        raise ValueError(
            f"Expected a tensor from the critic; got {type(output).__name__}. Return its score alone."
        )
    batch = len(x)
    if output.shape[:1] != (batch,) or output.numel() != batch:
        raise ValueError(
            f"Expected a critic output of shape ({batch},) or ({batch}, 1, ..., 1) for data of shape "
            f"{tuple(x.shape)}; got {tuple(output.shape)}. Give the critic one output a row, such as "
            "nn.Linear(width, 1) at its end, and squeeze its last dimension only."
        )
    return output.reshape(batch)
