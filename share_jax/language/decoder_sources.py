"""A decoder's tasks as those of adapter files: adapters of a causal language model, by its checkpoint's names."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from share_jax.checkpoint.bank_tasks import open_bank
from share_jax.checkpoint.checkpoint import open_checkpoint
from share_jax.formats.adapter_file import Source
from share_jax.formats.base_model import with_base
from share_jax.language.folder import place_found
from share_jax.language.settings import read_settings
from share_jax.models.decoder_weights import decoder_modules


def of_decoder(source: Source) -> Source:
    """The task as one that PEFT loads as a causal language model's."""
    return replace(source, config={**source.config, "task_type": "CAUSAL_LM"})


def saved_sources(folder: str | os.PathLike[str], names: Mapping[str, str] | None = None) -> list[Source]:
    """Every task of a language model's bank on disk, which needs no model for it.

    Args:
        folder: the bank's.
        names: PyTorch's name of every module by its path; the checkpoint's when None.

    Raises:
        FormatError: the bank is damaged or has no tasks.
        TargetError: a target is no linear module; a name is missing or of no module.
    """
    model, folder = read_settings(folder).model, Path(folder)
    chosen = decoder_modules(open_checkpoint(folder).manifest.identity.targets) if names is None else names
    return [of_decoder(each) for each in with_base(open_bank(folder, chosen), place_found(model, folder) or model)]
