"""What the writers of formats share: a dtype that holds the values, names for what belongs to pairs, refusals."""

import ml_dtypes
import numpy as np

from share_jax.errors import InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.linalg.finite import all_finite
from share_jax.storage.untrusted import shown

CONFIGS = "lora_adapter_metadata"
"""The entry of a file's metadata in which diffusers keeps the configurations of the components."""

_DTYPES = {"f32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16), "f16": np.dtype(np.float16)}


def as_dtype(values: np.ndarray, dtype: str | None, module: str) -> np.ndarray:
    """The values in a dtype, `f32`, `bf16` or `f16`; as they are when None.

    Raises:
        InputError: one of them is too large for it.
    """
    if dtype is None:
        return values
    with np.errstate(over="ignore"):
        cast = values.astype(_DTYPES[dtype])
    if cast.dtype != values.dtype and not all_finite(cast) and all_finite(values):
        fix = "pass --dtype f32" if cast.itemsize == 2 else "leave that adapter out or train it again"
        raise InputError(
            message(f"module {shown(module)}", got=f"a value too large for {dtype}", expected="one that fits", fix=fix)
        )
    return cast


def metadata_for(source: Source, kind: str | None) -> dict[str, str]:
    """The source's metadata without what another tool's reader would take for its own.

    Args:
        source: the task.
        kind: what the target writes as `format`; None where it writes none.
    """
    kept = {key: value for key, value in source.metadata.items() if key not in ("format", CONFIGS)}
    return kept if kind is None else {"format": kind, **kept}


def refuse(source: Source, target: str, got: str, expected: str) -> InputError:
    """The error of a task that a format cannot hold."""
    fix = "convert it to a format that can hold it (--to peft)"
    return InputError(message(f"{source.label} for {target}", got=got, expected=expected, fix=fix))
