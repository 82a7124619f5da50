"""From folders of adapters to tasks, each folder opened as the known format that it is of."""

import os
from collections.abc import Iterable, Mapping, Sequence

from share_jax.errors import FormatError, InputError, TaskError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.format import FORMATS, Format, names_of
from share_jax.formats.forms import LINEAR
from share_jax.formats.peft import CONFIG
from share_jax.storage.untrusted import check_folder, shown


def open_sources(
    folders: Sequence[str | os.PathLike], taken: Iterable[str] = (), formats: tuple[Format, ...] = FORMATS
) -> list[Source]:
    """Every task of the folders, in order. Only headers and configurations are read.

    Args:
        folders: adapters' folders, or compressed folders of lorashare or vlora, each of which holds many tasks.
        taken: names that are not free.
        formats: those that a folder may be of, in the order in which it is asked.

    Raises:
        InputError: a folder is not there, or two sources do not belong to one base model.
        FormatError: a folder is empty, damaged or not supported.
        TaskError: a name is not safe, is there twice, or is taken.
    """
    sources = [source for folder in folders for source in _open(folder, formats)]
    seen = set(taken)
    for source in sources:
        if source.name in seen:
            raise TaskError(
                message(f"task {shown(source.name)}", got="a name that exists", expected="a new name",
                     fix="rename the folder")
            )  # fmt: skip
        seen.add(source.name)
    return sources


def check_common_shapes(
    sources: Sequence[Source], known: dict[str, tuple[int, int]], forms: Mapping[str, str] | None = None
) -> None:
    """Checks that a module has one shape and one form in all sources.

    Args:
        sources: the tasks.
        known: (d_in, d_out) of a set's layers.
        forms: of a set's layers that are no pair of matrices; see `forms`.

    Raises:
        InputError: it does not; the adapters are of different base models.
    """
    shapes = dict(known)
    kinds = {module: (forms or {}).get(module, LINEAR) for module in known}
    for source in sources:
        for module, layer in source.layers.items():
            expected = shapes.setdefault(module, (layer.d_in, layer.d_out))
            if expected != (layer.d_in, layer.d_out):
                raise InputError(
                    message(f"{source.label} {shown(module)}", got=f"in, out = {layer.d_in}, {layer.d_out}",
                         expected=f"{expected[0]}, {expected[1]} as in the others",
                         fix="compress adapters of one base model")
                )  # fmt: skip
            form = kinds.setdefault(module, layer.form)
            if form != layer.form:
                raise InputError(
                    message(f"{source.label} {shown(module)}", got=layer.form, expected=f"{form} as in the others",
                         fix="compress adapters of one base model")
                )  # fmt: skip


def _open(folder: str | os.PathLike, formats: tuple[Format, ...]) -> list[Source]:
    path = check_folder(folder, "adapter")
    for each in formats:
        if each.detect(path):
            return each.open(path)
    got = "an empty folder" if not any(path.iterdir()) else f"a folder without {CONFIG}"
    expected = f"a folder of {names_of(formats)}"
    raise FormatError(message(f"adapter {shown(folder)}", got=got, expected=expected, fix="check the path"))
