"""What commands read adapters from: every known format of adapter files; a compressed set is refused by name."""

import os
from collections.abc import Iterable, Sequence

from share_jax.adapter_set.manifest import NAME
from share_jax.errors import InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.format import FORMATS
from share_jax.formats.open import open_sources
from share_jax.storage.untrusted import exists_inside, shown


def open_inputs(folders: Sequence[str | os.PathLike], taken: Iterable[str] = ()) -> list[Source]:
    """Every task of the folders; see `formats.open.open_sources`."""
    for folder in folders:
        _refuse_set(folder)
    return open_sources(folders, taken)


def _refuse_set(folder: str | os.PathLike) -> None:
    if exists_inside(folder, NAME) and not any(each.detect(folder) for each in FORMATS):
        raise InputError(
            message(f"adapter {shown(folder)}", got="a compressed set", expected="an adapter's folder",
                 fix="export its tasks first")
        )  # fmt: skip
