"""Folders that hold a PEFT folder for each component of an image model: `unet/`, `text_encoder/` and so on."""

import os

from share_jax.errors import FormatError, message
from share_jax.formats import components
from share_jax.formats.adapter_file import Source
from share_jax.formats.peft import CONFIG, open_adapter
from share_jax.formats.renamed import joined
from share_jax.storage.untrusted import check_folder, exists_inside, shown, task_name_of


def is_peft_parts(folder: str | os.PathLike) -> bool:
    """Whether the folder has PEFT folders of components, and is none itself."""
    return not exists_inside(folder, CONFIG) and bool(_parts(folder))


def open_peft_parts(folder: str | os.PathLike) -> list[Source]:
    """The components' adapters as one task.

    Raises:
        FormatError: one of them is damaged, or saves more than pairs and what belongs to them.
    """
    path = check_folder(folder, "adapter")
    parts = {component: open_adapter(path / component) for component in _parts(path)}
    for source in parts.values():
        stray = next((key for key in source.extra_names if key not in source.companions), None)
        if stray is not None:
            raise FormatError(
                message(f"{source.label} of {shown(path.name)} tensor {shown(stray)}", got="none of a pair",
                     expected="pairs alone", fix="convert that folder by itself")
            )  # fmt: skip
    return [joined(parts, task_name_of(path))]


def _parts(folder: str | os.PathLike) -> list[str]:
    return [name for name in components.COMPONENTS if exists_inside(folder, os.path.join(name, CONFIG))]
