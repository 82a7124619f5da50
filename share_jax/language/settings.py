"""What a folder of a language model's tasks says of itself: the model, and how its kernels are adapted."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError, InputError, message
from share_jax.language.folder import NAME as FILE
from share_jax.language.folder import is_language_bank
from share_jax.number_checks import finite_number, whole_number
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
        targets: regular expressions over kernel paths, or one; every kernel from `first_layer` on when empty.
        max_length: the most tokens of an example.
        tokens: checksums of the tokenizer, the stop token and the chat template; None in banks that have none yet.

    Raises:
        InputError: a number is none or out of range, a target is no text, or there is no such method.

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
    tokens: Mapping[str, str] | None = field(default=None, hash=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the fields."""
        targets = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        object.__setattr__(self, "targets", targets)
        if wrong := [each for each in targets if not isinstance(each, str)]:
            got, expected = repr(wrong[0]), "regular expressions over kernel paths"
            raise InputError(message("targets", got=got, expected=expected, fix="pass texts"))
        if self.method not in NAMES:
            raise InputError(message("method", got=self.method, expected=", ".join(NAMES), fix="choose one"))
        least = {"rank": 1, "num_basis": 1, "max_length": 8, "first_layer": 0}
        for name, lowest in least.items():
            if name != "first_layer" or self.first_layer is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), lowest))
        object.__setattr__(self, "alpha", finite_number("alpha", self.alpha))


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
    content.setdefault("tokens", None)  # banks of earlier versions have none
    known = {each.name for each in dataclasses.fields(LanguageSettings)}
    fix = "restore the file"
    if set(content) != known:
        raise FormatError(message(f"{what} {FILE}", got="other fields", expected=", ".join(sorted(known)), fix=fix))
    for name, value in content.items():
        if not _right(name, value):
            got, expected = f"{name}: {shown(json.dumps(value), 60)}", "what share-jax learn writes"
            raise FormatError(message(f"{what} {FILE}", got=got, expected=expected, fix=fix))
    return LanguageSettings(**content)


def _right(name: str, value: Any) -> bool:
    """Whether a field's value is of its kind."""
    if name in ("first_layer", "tokens") and value is None:
        return True
    if name in ("targets", "tokens"):
        kind, texts = (list, value) if name == "targets" else (dict, getattr(value, "values", tuple)())
        return isinstance(value, kind) and all(isinstance(each, str) for each in texts)
    kinds = {"model": str, "method": str, "alpha": (int, float)}
    return isinstance(value, kinds.get(name, int)) and not isinstance(value, bool)


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
