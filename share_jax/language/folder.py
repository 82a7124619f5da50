"""How the folder of a language model's tasks is told from others; loads no library."""

import os

from share_jax.storage.untrusted import exists_inside

NAME = "language_model.json"


def is_language_bank(folder: str | os.PathLike[str]) -> bool:
    """Whether the folder holds a language model's tasks.

    Example:
        >>> is_language_bank("bank"), is_language_bank("decoder")
        (True, False)
    """
    return exists_inside(folder, NAME)
