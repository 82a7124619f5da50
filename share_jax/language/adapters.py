"""A language model's tasks as PEFT folders, and PEFT folders as its tasks, by the names of its checkpoint."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optax

from share_jax.checkpoint.saved_bank import save_bank
from share_jax.checkpoint.share_tasks import save_share_task
from share_jax.errors import InputError, message
from share_jax.formats.adapter_file import Source
from share_jax.formats.bank_tasks import (
    adapters_and_heads,
    bank_source,
    bank_sources,
    check_linear,
    check_replaceable,
    with_sources,
    write_peft,
    write_tasks,
)
from share_jax.formats.open import open_sources
from share_jax.language.changing import begin, changing
from share_jax.language.decoder_sources import of_decoder
from share_jax.language.language_bank import LanguageBank
from share_jax.language.settings import write_settings
from share_jax.models.decoder_weights import decoder_names
from share_jax.subspace.share_bank import ShareBank, with_record
from share_jax.train.share_learner import ShareLearner, TrainedTask


def export_tasks(
    opened: LanguageBank, folder: str | os.PathLike[str], *, base_model: str | None = None, overwrite: bool = False
) -> dict[str, Path]:
    """Writes every task as a PEFT folder, FOLDER/TASK, for the checkpoint that the bank's model is.

    Args:
        opened: the bank.
        folder: where.
        base_model: `base_model_name_or_path` to write; the model's path when None.
        overwrite: whether adapters in folders of these names may be replaced.

    Raises:
        TargetError, TaskError, InputError: see `share_jax.export_peft`.

    Example:
        >>> from share_jax.language import open_language_bank
        >>> places = export_tasks(open_language_bank("bank"), "peft")
        >>> [place.as_posix() for place in places.values()]
        ['peft/cats', 'peft/dogs']
    """
    base = _base(opened, base_model)
    sources = bank_sources(opened.bank, opened.adapted, _names(opened), base_model=base)
    check_linear(opened.adapted)
    return write_tasks([of_decoder(each) for each in sources], folder, overwrite)


def export_task(
    opened: LanguageBank, task: str, folder: str | os.PathLike[str], *, base_model: str | None = None
) -> Path:
    """Writes one task as the PEFT folder FOLDER; an adapter that is there is replaced.

    Args:
        opened: the bank.
        task: its name.
        folder: where.
        base_model: `base_model_name_or_path` to write; the model's path when None.

    Raises:
        TaskError: there is no such task.
        InputError: something else than an adapter is there.
        TargetError: see `share_jax.export_peft`.

    Example:
        >>> from share_jax.language import open_language_bank
        >>> export_task(open_language_bank("bank"), "dogs", "dogs_adapter").as_posix()
        'dogs_adapter'
    """
    check_linear(opened.adapted)
    check_replaceable(Path(folder), overwrite=True)
    base = _base(opened, base_model)
    source = bank_source(opened.bank, opened.adapted, task, _names(opened), base_model=base)
    write_peft(of_decoder(source), Path(folder))
    return Path(folder)


def import_tasks(
    opened: LanguageBank, folders: Sequence[str | os.PathLike[str]], names: Sequence[str] | None = None
) -> LanguageBank:
    """The bank with PEFT adapters as further tasks, saved; learnt tasks keep their bits.

    Those of "share" change within their bounds instead: each adapter is merged into the subspace, as a task that was
    learnt would be.

    Args:
        opened: the bank.
        folders: of PEFT, one for each task.
        names: of the tasks; the folders' own when None, with parents where two are alike.

    Raises:
        InputError: the bank cannot hold an adapter; or a training was broken off in it.
        BusyError: another process has changed the bank since it was opened.
        FormatError, TargetError, TaskError: see `share_jax.import_peft`.

    Example:
        >>> from share_jax.language import open_language_bank
        >>> opened = open_language_bank("bank")
        >>> place = export_task(opened, "dogs", "wolves")
        >>> import_tasks(opened, [place]).bank.names
        ('cats', 'dogs', 'wolves')
    """
    sources, learner = open_sources(folders, opened.bank.names, names=names), opened.learner(optax.sgd(0.0))
    if isinstance(learner, ShareLearner):
        banks: list[Any] = _merged(opened, learner, sources)
    else:
        banks = [with_sources(sources, opened.adapted, opened.bank, _names(opened)).bank]
    with changing(opened):
        begin(opened, learner)
        for bank in banks:
            save: Any = save_share_task if isinstance(learner, ShareLearner) else save_bank
            save(opened.folder, learner, bank)
        write_settings(opened.folder, opened.settings)
    return replace(opened, bank=banks[-1])


def _merged(opened: LanguageBank, learner: ShareLearner, sources: Sequence[Source]) -> list[ShareBank]:
    """The bank after each of the adapters.

    Raises:
        InputError: one is of a larger rank than the bank's tasks.
    """
    adapters, heads = adapters_and_heads(sources, opened.adapted, opened.bank, _names(opened))
    bank, most, out = with_record(opened.bank, opened.adapted), learner.model.method.pseudo_rank, []
    for task, adapter in adapters.items():
        rank = max((factors.rank for factors in adapter.values()), default=0)
        if rank > most:
            expected, fix = f"at most the bank's {most}", f"make a bank with --rank {rank}"
            raise InputError(message(f"rank of task {task!r}", got=rank, expected=expected, fix=fix))
        bank = learner.merge(bank, task, TrainedTask(adapter, heads[task]))
        out.append(bank)
    return out


def _names(opened: LanguageBank) -> Any:
    """The names that the bank's checkpoint has for its tensors."""
    return decoder_names(opened.pretrained.model.config)


def _base(opened: LanguageBank, given: str | None) -> str:
    return opened.settings.model if given is None else given
