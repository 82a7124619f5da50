"""From folders of adapters to tasks, each folder opened as the known format that it is of."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from share_jax.errors import FormatError, InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.foreign_folders import foreign_folder
from share_jax.formats.format import FORMATS, Format, names_of
from share_jax.formats.lora_leaves import BY_HAND
from share_jax.formats.mlx import WEIGHTS as MLX_WEIGHTS
from share_jax.formats.pair_layouts import LINEAR
from share_jax.formats.pairs import place_of
from share_jax.formats.peft import CONFIG, PICKLED, WEIGHTS
from share_jax.formats.peft_keys import PREFIX
from share_jax.formats.task_names import check_free, named
from share_jax.formats.tensor_files import TENSOR_FILES, open_tensors
from share_jax.storage.untrusted import check_folder, shown

NEEDS_CONFIG = (WEIGHTS, PICKLED, MLX_WEIGHTS)
"""Files of tensors that are no adapter without the configuration beside them."""


OF_JAX = (".npz", ".npy", ".msgpack", ".h5", ".pkl")
"""Endings of files in which trees of JAX's libraries are kept, too."""


def open_sources(
    folders: Sequence[str | os.PathLike],
    taken: Iterable[str] = (),
    formats: tuple[Format, ...] = FORMATS,
    names: Sequence[str] | None = None,
) -> list[Source]:
    """Every task of the folders, in order. Only headers and configurations are read.

    Args:
        folders: adapters' folders, or compressed folders of lorashare or vlora, each of which holds many tasks.
        taken: names that are not free.
        formats: those that a folder may be of, in the order in which it is asked.
        names: of the tasks, one per folder; the folders' own when None, with parents where two are alike.

    Raises:
        InputError: a folder is not there, or two sources do not belong to one base model.
        FormatError: a folder is empty, damaged or not supported.
        TaskError: a name is not safe, is there twice, or is taken.

    Example:
        >>> [(source.name, source.base_model) for source in open_sources(["cola", "rte"])]
        [('cola', 'acme/tiny'), ('rte', 'acme/tiny')]
        >>> open_sources(["cola"], taken=["cola"])
        Traceback (most recent call last):
        share_jax.errors.TaskError: task cola: got a name that exists, expected a new name; rename the folder, ...
    """
    found = [format_of(folder, formats) for folder in folders]
    sources = named([path for path, _ in found], [each.open(path) for path, each in found], names)
    check_free(sources, taken)
    return sources


def check_common_shapes(
    sources: Sequence[Source], known: dict[str, tuple[int, int]], forms: Mapping[str, str] | None = None
) -> None:
    """Checks that a module has one shape and one form in all sources.

    Args:
        sources: the tasks.
        known: (d_in, d_out) of a set's layers.
        forms: of a set's layers that are no pair of matrices; see `pair_layouts`.

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


def format_of(place: str | os.PathLike, formats: tuple[Format, ...] = FORMATS) -> tuple[Path, Format]:
    """Where an adapter lies, and which format it is of.

    Args:
        place: a folder, or a file of tensors; a file that needs others beside it stands for its folder.
        formats: those that it may be of, in the order in which it is asked.

    Raises:
        InputError: there is nothing.
        FormatError: the file is damaged, or no format is known that has such names.
    """
    path = Path(place)
    if path.is_file() and path.name in (*NEEDS_CONFIG, CONFIG):
        path = path.parent
    if not path.is_file():
        path = check_folder(path, "adapter")
    for each in formats:
        if each.detect(path):
            return path, each
    raise _unknown(path, formats)


def _unknown(path: Path, formats: tuple[Format, ...]) -> FormatError:
    """Why the path is of none of the formats."""
    one = place_of(path)
    fix = "check which tool wrote it"
    if one is not None:
        with open_tensors(one.folder, one.name) as file:  # which says what is wrong, if it is damaged
            first = next(iter(file.tensors), None)
            of_peft = any(name.startswith(PREFIX) or ".lora_A." in name for name in file.tensors)
        got = "no tensors" if first is None else f"tensors such as {shown(first)}"
        expected = f"those of {names_of(formats)}"
        if of_peft:
            got, expected = f"{got}, as PEFT has them", f"{CONFIG} beside them"
            fix = f"name the folder with both, {WEIGHTS} and {CONFIG}"
    elif path.is_file():
        got, expected = "another file", " or ".join(TENSOR_FILES)
        if path.name.endswith(OF_JAX):
            fix = f"a tree of JAX's is written as a PEFT folder in Python: {BY_HAND}"
    elif sum(name.endswith(TENSOR_FILES) for name in os.listdir(path)) > 1:
        got, expected, fix = f"several files of tensors and no {CONFIG}", "one of them", "name the file"
    else:
        got, fix = foreign_folder(path)
        expected = f"a folder of {names_of(formats)}"
    return FormatError(message(f"adapter {shown(path)}", got=got, expected=expected, fix=fix))
