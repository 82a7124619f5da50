"""What a folder of a language model's tasks says of itself: the model, and how its kernels are adapted."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError, InputError, message
from share_jax.language.folder import NAME as FILE
from share_jax.language.folder import is_language_bank
from share_jax.parameterizations.method_names import NAMES
from share_jax.storage.atomic_write import replace_text
from share_jax.storage.untrusted import read_json, shown

SCHEMA = 1


@dataclass(frozen=True)
class LanguageSettings:
    """How a bank's model is adapted; the same for all its tasks.

    Attributes:
        model: path of the base model, a folder or a GGUF file.
        method: "shared_a", one A for all tasks; "separate", a LoRA for each; "share", one subspace that evolves.
        rank: of every update.
        alpha: an update's scale is alpha / rank.
        num_basis: columns of the subspace's bases, of "share" alone.
        first_layer: the layers below it are frozen and not adapted; the last third of the layers is when None.
        targets: regular expressions over kernel paths; every kernel from `first_layer` on when empty.
        max_length: the most tokens of an example.

    Raises:
        InputError: a number is below 1, or there is no such method.

    Example:
        >>> LanguageSettings("decoder", rank=4, first_layer=1)
        LanguageSettings(model='decoder', method='shared_a', rank=4, alpha=16.0, num_basis=40, first_layer=1, ...)
        >>> LanguageSettings("decoder", method="prompts")
        Traceback (most recent call last):
        share_jax.errors.InputError: method: got prompts, expected shared_a, separate, share; choose one
    """

    model: str
    method: str = NAMES[0]
    rank: int = 8
    alpha: float = 16.0
    num_basis: int = 40
    first_layer: int | None = None
    targets: tuple[str, ...] = ()
    max_length: int = 512

    def __post_init__(self) -> None:
        """Checks the fields."""
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.method not in NAMES:
            raise InputError(message("method", got=self.method, expected=", ".join(NAMES), fix="choose one"))
        least = {"rank": 1, "num_basis": 1, "max_length": 8, "first_layer": 0}
        for name, lowest in least.items():
            if (value := getattr(self, name)) is not None and value < lowest:
                raise InputError(message(name, got=value, expected=f"at least {lowest}", fix="raise it"))


def read_settings(folder: str | os.PathLike[str]) -> LanguageSettings:
    """The folder's settings.

    Raises:
        InputError: there are none.
        FormatError: they are damaged, or of a later version.

    Example:
        >>> read_settings("bank").rank
        2
        >>> read_settings("decoder")
        Traceback (most recent call last):
        share_jax.errors.InputError: bank decoder: got no language_model.json, expected a language model's bank; ...
    """
    what = f"bank {shown(Path(folder))}"
    if not is_language_bank(folder):
        fix = "check the path; share-jax learn makes a bank"
        raise InputError(message(what, got=f"no {FILE}", expected="a language model's bank", fix=fix))
    content: dict[str, Any] = read_json(folder, FILE)
    if content.pop("schema", None) != SCHEMA:
        fix = "update share_jax"
        raise FormatError(message(f"{what} {FILE}", got="another schema", expected=f"schema {SCHEMA}", fix=fix))
    kinds = {"model": str, "method": str, "targets": list, "alpha": (int, float)}
    known = {field.name for field in dataclasses.fields(LanguageSettings)}
    right = set(content) == known and all(
        isinstance(value, kinds.get(name, int)) or (name == "first_layer" and value is None)
        for name, value in content.items()
    )
    if not right:
        fix = "restore the file"
        raise FormatError(message(f"{what} {FILE}", got="other fields", expected=", ".join(sorted(known)), fix=fix))
    return LanguageSettings(**content)


def write_settings(folder: str | os.PathLike[str], settings: LanguageSettings) -> None:
    """Writes the settings of a new bank, in one step.

    Args:
        folder: the bank's; it must be there.
        settings: how its model is adapted.

    Example:
        >>> Path("new").mkdir()
        >>> write_settings("new", LanguageSettings("decoder", rank=4))
        >>> read_settings("new").rank
        4
    """
    content = {"schema": SCHEMA, **dataclasses.asdict(settings)}
    replace_text(json.dumps(content, indent=2) + "\n", Path(folder) / FILE)
