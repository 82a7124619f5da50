"""The names of a model's modules, from its weights, the index of its weights, or a list."""

import os
from pathlib import Path

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.tensor_files import TENSOR_FILES, open_tensors
from share_jax.storage.untrusted import read_small, shown, strict_json

_ENDS = (".weight", ".bias")


def modules_in(path: str | os.PathLike) -> tuple[str, ...]:
    """Every module that a file names, each once.

    Args:
        path: a file of the model's weights (its header alone is read); the JSON index of such files, or a JSON list of
            names; else a text with one name on a line. Names of weights lose their last part.

    Raises:
        InputError: there is no such file.
        FormatError: it is damaged, or holds no names.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(message(f"modules {shown(path)}", got="no file", expected="a file", fix="check the path"))
    if file.name.endswith(TENSOR_FILES):
        with open_tensors(file.parent, file.name) as opened:
            names = list(opened.tensors)
    else:
        names = _listed(file)
    plain = dict.fromkeys(_module_of(name) for name in names)
    if not plain:
        raise FormatError(message(f"modules {shown(path)}", got="no names", expected="one on a line", fix="check it"))
    return tuple(plain)


def _listed(file: Path) -> list[str]:
    text = read_small(file.parent, file.name)
    expected = "names, one on a line, or JSON: a list of them or an index of weights"
    try:
        if file.suffix != ".json":
            return [line.strip() for line in text.decode().splitlines() if line.strip()]
        value = strict_json(text)
    except ValueError as e:
        raise FormatError(message(f"modules {shown(file)}", got=shown(e), expected=expected, fix="check it")) from None
    names = value.get("weight_map") if isinstance(value, dict) else value
    names = list(names) if isinstance(names, dict) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(message(f"modules {shown(file)}", got="other JSON", expected=expected, fix="check it"))
    return names


def _module_of(name: str) -> str:
    return next((name.removesuffix(end) for end in _ENDS if name.endswith(end)), name)
