"""What commands read adapters from: every known format of adapter files, and banks; a compressed set is refused."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from share_jax.adapter_set.manifest import NAME
from share_jax.errors import FormatError, InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.format import FORMATS, Format
from share_jax.formats.open import open_sources
from share_jax.language.folder import is_language_bank
from share_jax.storage.untrusted import exists_inside, read_json, shown


def open_inputs(
    folders: Sequence[str | os.PathLike],
    taken: Iterable[str] = (),
    names: str | os.PathLike | None = None,
    tasks: Sequence[str] | None = None,
) -> list[Source]:
    """Every task of the folders, in order; see `formats.open.open_sources`.

    Args:
        folders: of adapters or of banks.
        taken: names that are not free.
        names: a JSON file with PyTorch's name of every module by its path in a bank's model.
        tasks: the tasks' names, one per folder; the folders' own when None.

    Raises:
        InputError, FormatError, TaskError, TargetError: see `open_sources` and `checkpoint.bank_tasks.open_bank`.
    """
    bank = Format("a bank", is_bank, partial(_open_bank, names=names))
    for folder in folders:
        known = any(each.detect(folder) for each in (*FORMATS, bank))
        if not known and exists_inside(folder, NAME):
            raise InputError(
                message(f"adapter {shown(folder)}", got="a compressed set", expected="an adapter's folder",
                     fix="export its tasks first")
            )  # fmt: skip
    return open_sources(folders, taken, (*FORMATS, bank), tasks)


def is_bank(folder: str | os.PathLike) -> bool:
    """Whether the folder looks like a bank's, be it damaged: a manifest with its copy, or beside folders of tasks."""
    return exists_inside(folder, "manifest.copy.json") or (
        exists_inside(folder, NAME) and os.path.isdir(os.path.join(folder, "tasks"))
    )


def check_no_bank(folder: str | os.PathLike) -> None:
    """Refuses a language model's bank where a compressed set is meant.

    Raises:
        InputError: it is one.
    """
    if is_language_bank(folder):
        got, fix = "a language model's bank", "see share-jax tasks, evaluate, generate or export, or compress it first"
        raise InputError(message(f"set {shown(folder)}", got=got, expected="a compressed set", fix=fix))


def _open_bank(folder: str | os.PathLike, names: str | os.PathLike | None) -> list[Source]:
    # A bank's arrays are Orbax's, which needs JAX; nothing else that the commands read does.
    given = None if names is None else _names(names)
    if is_language_bank(folder):
        from share_jax.language.decoder_sources import saved_sources

        return saved_sources(folder, given)
    from share_jax.checkpoint.bank_tasks import open_bank

    return open_bank(folder, given)


def _names(path: str | os.PathLike) -> dict[str, str]:
    place = Path(path)
    if not place.is_file():
        raise InputError(message(f"names {shown(path)}", got="no file", expected="a JSON file", fix="check the path"))
    names = read_json(place.parent, place.name)
    if not all(isinstance(name, str) for name in names.values()):
        expected, fix = "a name for each module path", 'write {"encoder/ffn": "bert.encoder.ffn", ...}'
        raise FormatError(message(f"names {shown(path)}", got="another value", expected=expected, fix=fix))
    return names
