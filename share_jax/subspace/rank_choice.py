"""How many basis columns to keep, as the user says it."""

from dataclasses import dataclass, fields

from share_jax.errors import InputError, message
from share_jax.linalg.rank_selection import k_by_explained_variance, k_by_relative_error
from share_jax.linalg.spectrum import Spectrum

DEFAULT_EXPLAINED_VARIANCE = 0.999


@dataclass(frozen=True)
class Choice:
    """One way to choose k per layer and side; without any, an explained variance of 0.999.

    Whatever is asked, k never exceeds the numerical rank.

    Attributes:
        k: columns per side.
        explained_variance: smallest k with `sum_{j<=k} s_j^2 >= x * total`, in (0, 1]. What earlier merges have
            discarded counts as lost, so repeated merges do not eat the subspace away.
        relative_error: smallest k whose tail norm is at most this share of the stack's norm, in [0, 1).
        max_error: every task's update, over its whole adapter, within this relative Frobenius error, in [0, 1).

    Raises:
        InputError: more than one is given, or one is out of its range.

    Example:
        >>> Choice(), Choice(k=8)
        (Choice(k=None, explained_variance=0.999, ...), Choice(k=8, explained_variance=None, ...))
        >>> Choice(k=8, max_error=0.01)
        Traceback (most recent call last):
        share_jax.errors.InputError: choice of k: got k, max_error, expected one of them; drop the others
    """

    k: int | None = None
    explained_variance: float | int | None = None
    relative_error: float | int | None = None
    max_error: float | int | None = None

    def __post_init__(self) -> None:
        """Checks that one is given and in range; fills in the default."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if not given:
            object.__setattr__(self, "explained_variance", DEFAULT_EXPLAINED_VARIANCE)
            return
        if len(given) > 1:
            raise InputError(
                message("choice of k", got=", ".join(given), expected="one of them", fix="drop the others")
            )
        ((name, value),) = given.items()
        valid = {"k": value >= 1, "explained_variance": 0 < value <= 1}.get(name, 0 <= value < 1)
        if not valid:
            ranges = {"k": "at least 1", "explained_variance": "above 0 and at most 1"}
            expected = ranges.get(name, "at least 0 and below 1")
            raise InputError(message(name, got=value, expected=expected, fix="change it"))


def choose(choice: Choice, spectrum: Spectrum, total: float | None = None) -> int:
    """k for one stack by any choice but `max_error`, which needs the updates themselves.

    Args:
        choice: how.
        spectrum: of the stack.
        total: the squared norm that shares are taken of, where that is more than the stack's own.
    """
    if choice.k is not None:
        return min(spectrum.rank, choice.k)
    energy = spectrum.energy if total is None else total
    if choice.explained_variance is not None:
        return int(k_by_explained_variance(spectrum.singular_values, energy, spectrum.rank, choice.explained_variance))
    return int(k_by_relative_error(spectrum.singular_values, energy, spectrum.rank, choice.relative_error or 0.0))
