"""How the folder of a language model's tasks is told from others, and where its model lies; loads no library."""

import os
from pathlib import Path

from share_jax.errors import InputError, message
from share_jax.storage.untrusted import exists_inside, shown

NAME = "language_model.json"


def is_language_bank(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder holds a language model's tasks.

    Example:
        >>> is_language_bank("bank"), is_language_bank("decoder")
        (True, False)
    """
    return exists_inside(folder, NAME)


def model_place(model: str, bank: Path) -> str:
    """The model's path from the root; one that is not there from here is looked for from beside the bank.

    Raises:
        InputError: the bank's model is not where it was.
    """
    found = place_found(model, bank) if is_language_bank(bank) else os.path.abspath(Path(model).expanduser())
    if found is None:
        what, fix = f"model of bank {shown(bank)}", "pass its place: --model PATH"
        raise InputError(message(what, got=f"nothing at {shown(model)}", expected="its base model", fix=fix))
    return found


def place_found(model: str, bank: Path) -> str | None:
    """Where a bank's model is now, from here or from beside the bank; None where it is not."""
    path = Path(model).expanduser()
    found = next((place for place in (path, bank.parent / path, bank / path) if place.exists()), None)
    return None if found is None else os.path.abspath(found)
