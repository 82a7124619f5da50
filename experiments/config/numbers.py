"""The numbers that only some methods read: a frozen dataclass beside each method, whose fields are flags of a run."""

from dataclasses import dataclass
from typing import ClassVar

from share_jax.errors import ShareError, message


class ConfigError(ShareError):
    """A field of the configuration is out of range. No ValueError, which the parser would word in its own way."""


@dataclass(frozen=True)
class MethodNumbers:
    """Numbers of one method, or of a few that share them; a subclass has a field with a docstring for each.

    `__post_init__` of a subclass checks their ranges. No two subclasses have a field of one name.
    """

    behind: ClassVar[str] = "save_every"
    """The field of `Config` behind which these stand in a command."""

    def check_batches(self, parts: int) -> None:
        """Refuses numbers that do not fit batches of so many parts, those of the mesh times the microbatches.

        Raises:
            ConfigError: a number of examples cannot be cut into the parts.
        """

    def at_least(self, least: int, *names: str, fix: str = "change it") -> None:
        """Refuses a field below a bound.

        Raises:
            ConfigError: naming the first such field by its flag.
        """
        for name in names:
            if not getattr(self, name) >= least:
                raise out_of_range(name, getattr(self, name), f"at least {least}", fix)

    def above_zero(self, *names: str) -> None:
        """Refuses a field that is not positive.

        Raises:
            ConfigError: naming the first such field by its flag.
        """
        for name in names:
            if not getattr(self, name) > 0:
                raise out_of_range(name, getattr(self, name), "above 0")


def out_of_range(name: str, got: object, expected: str, fix: str = "change it") -> ConfigError:
    """The error of a field, which is named by its flag."""
    return ConfigError(message(flag(name), got=got, expected=expected, fix=fix))


def flag(name: str) -> str:
    """The flag of a field.

    >>> flag("buffer_size")
    '--buffer-size'
    """
    return "--" + name.replace("_", "-")
