"""A language model's tasks as PEFT folders, and PEFT folders as its tasks, by the names of its checkpoint."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optax

from share_jax.checkpoint.saved_bank import save_bank
from share_jax.errors import InputError, message
from share_jax.formats.bank_tasks import export_peft, import_peft
from share_jax.language.language_bank import LanguageBank
from share_jax.language.settings import write_settings
from share_jax.models.decoder_weights import decoder_names
from share_jax.storage.untrusted import publish
from share_jax.train.share_bank import ShareBank


def export_tasks(
    opened: LanguageBank, folder: str | os.PathLike[str], *, base_model: str | None = None, overwrite: bool = False
) -> dict[str, Path]:
    """Writes every task as a PEFT folder, FOLDER/TASK, for the checkpoint that the bank's model is.

    Args:
        opened: the bank.
        folder: where.
        base_model: `base_model_name_or_path` to write; the model's path when None.
        overwrite: whether folders of these names may be replaced.

    Raises:
        TargetError, TaskError, InputError: see `share_jax.export_peft`.
    """
    names = decoder_names(opened.pretrained.model.config)
    base = opened.settings.model if base_model is None else base_model
    return export_peft(opened.bank, opened.adapted, folder, names, base_model=base, overwrite=overwrite)


def export_task(
    opened: LanguageBank, task: str, folder: str | os.PathLike[str], *, base_model: str | None = None
) -> Path:
    """Writes one task as the PEFT folder FOLDER, which may be one that is replaced.

    Raises:
        TaskError: there is no such task.
        TargetError: see `share_jax.export_peft`.
    """
    opened.bank.index(task)
    with tempfile.TemporaryDirectory(dir=Path(folder).parent) as room:
        made = export_tasks(opened, room, base_model=base_model)
        with publish(Path(folder)) as temp:
            for file in made[task].iterdir():
                shutil.copy2(file, temp / file.name)
    return Path(folder)


def import_tasks(opened: LanguageBank, folders: Sequence[str | os.PathLike[str]]) -> LanguageBank:
    """The bank with PEFT adapters as further tasks, saved; learnt tasks keep their bits.

    Raises:
        InputError: the bank is one of "share", or cannot hold an adapter.
        FormatError, TargetError, TaskError: see `share_jax.import_peft`.
    """
    if isinstance(opened.bank, ShareBank):
        fix = "compress the adapters by share-jax compress, or make a bank with --method separate"
        raise InputError(message("bank", got="one of share", expected="one of another method", fix=fix))
    names = decoder_names(opened.pretrained.model.config)
    taken: Any = import_peft(list(folders), opened.adapted, opened.bank, names)
    learner: Any = opened.learner(optax.sgd(0.0))
    save_bank(opened.folder, learner, taken.bank)
    write_settings(opened.folder, opened.settings)
    return replace(opened, bank=taken.bank)
