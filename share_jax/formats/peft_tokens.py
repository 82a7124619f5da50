"""The rows of an embedding that PEFT trains one by one beside LoRA: `trainable_token_indices` and its tensors.

PEFT does not load an adapter whose configuration names such rows while its file lacks them, or has another number of
them. Of an embedding and an output that share their weights the file holds one tensor.

Source: PEFT `utils/other.py`, class `TrainableTokensWrapper`; `utils/save_and_load.py`.
"""

from collections.abc import Mapping
from typing import Any

from share_jax.errors import FormatError, message
from share_jax.formats.peft_keys import PREFIX, unwrapped
from share_jax.storage.untrusted import shown

KEY = "trainable_token_indices"
_END = ".token_adapter.trainable_tokens_delta"


def check_tokens(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], label: str) -> None:
    """Checks that the file has the rows that the configuration names.

    Args:
        config: PEFT's.
        shapes: of the file's tensors, by their names.
        label: for messages.

    Raises:
        FormatError: rows are named in no way that PEFT knows, or the file has none, or another number of them.
    """
    named = config.get(KEY)
    if named is None or named == {}:
        return
    wanted = named if isinstance(named, dict) else {"": named}
    for rows in wanted.values():
        if not isinstance(rows, list) or not all(type(row) is int for row in rows):
            expected, fix = "whole numbers, in a list or in a map of lists", "correct adapter_config.json"
            raise FormatError(message(f"{label} {KEY}", got=shown(repr(named), 60), expected=expected, fix=fix))
    found = {
        unwrapped(key).removeprefix(PREFIX).removesuffix(_END): shape
        for key, shape in shapes.items()
        if key.endswith(_END)
    }
    if not found:
        raise FormatError(
            message(f"{label} {KEY}", got="no trainable_tokens_delta in the file", expected="the trained rows",
                 fix="save the adapter again, or set it to null in adapter_config.json if no row was trained")
        )  # fmt: skip
    for module, shape in found.items():
        counts = [len(rows) for name, rows in wanted.items() if f".{module}".endswith(f".{name}" if name else "")]
        if counts and (len(shape) != 2 or shape[0] not in counts):
            got, expected = f"shape {shape} for {shown(module)}", f"{counts[0]} rows"
            raise FormatError(message(f"{label} {KEY}", got=got, expected=expected, fix="save the adapter again"))
