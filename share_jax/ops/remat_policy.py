"""What a backward pass computes again, and what is kept for it."""

from dataclasses import dataclass

import jax

from share_jax.errors import InputError, message

POLICIES = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_without_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
"""What is kept between the passes: nothing; all matrix products; those that have no batch axis."""


@dataclass(frozen=True)
class Remat:
    r"""What is computed again.

    Attributes:
        policy: a name in `POLICIES`.
        blocks: regular expressions over module paths, such as r"encoder/layer_\d+"; each match is a block of its own.
            Without any, the whole forward pass is one block.

    Raises:
        InputError: for an unknown policy.

    Example:
        >>> Remat(policy="dots", blocks=("encoder/layer_.*",))  # for Learner(..., remat=...)
        Remat(policy='dots', blocks=('encoder/layer_.*',))
        >>> Remat(policy="all")
        Traceback (most recent call last):
        share_jax.errors.InputError: remat policy: got 'all', expected one of nothing, dots, dots_without_batch; ...
    """

    policy: str = "nothing"
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            expected = f"one of {', '.join(POLICIES)}"
            raise InputError(message("remat policy", got=repr(self.policy), expected=expected, fix="check the name"))
