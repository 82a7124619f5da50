"""A parameterisation out of what a checkpoint keeps of it: its name and its static numbers."""

from collections.abc import Mapping
from typing import Any

from share_jax.errors import FormatError, InputError, message
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.parameterizations.shared_a import SharedA

KNOWN = {method().name: method for method in (SharedA, SeparateLoRA, Share, ShareAdapt)}


def method_of(stored: Mapping[str, Any], what: str) -> Parameterization:
    """The parameterisation that a checkpoint's identity describes.

    Args:
      stored: its name and fields.
      what: the folder, for the message.

    Raises:
      FormatError: it is none of the library's, or has other fields.

    >>> method_of({"name": "shared_a", "rank": 2, "alpha": 4.0, "init_std": 0.02}, "bank")
    SharedA(rank=2, alpha=4.0, init_std=0.02)
    """
    numbers = {name: value for name, value in stored.items() if name != "name"}
    kind = KNOWN.get(str(stored.get("name")))
    fix = "load it in Python with share_jax.load_bank, which knows the model, and export it from there"
    if kind is None:
        got, expected = repr(stored.get("name")), f"one of {sorted(KNOWN)}"
        raise FormatError(message(f"method of {what}", got=got, expected=expected, fix=fix))
    try:
        return kind(**numbers)
    except (TypeError, InputError) as error:
        raise FormatError(
            message(f"method of {what}", got=error, expected=f"those of {kind.__name__}", fix=fix)
        ) from None
