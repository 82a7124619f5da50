"""How a language model's bank is opened or made: the options that all its tasks have in common."""

import argparse
import dataclasses
from pathlib import Path

from share_jax.cli.options import number, whole
from share_jax.errors import InputError, message
from share_jax.language.settings import LanguageSettings, is_language_bank, read_settings
from share_jax.parameterizations.method_names import NAMES

OF_BANK = {"method": "--method", "rank": "--rank", "alpha": "--alpha", "num_basis": "--num-basis",
           "first_layer": "--first-layer", "targets": "--targets", "max_length": "--max-length"}  # fmt: skip
"""What all tasks of a bank have in common, by the option that sets it for a new one."""

_TASKS = "the bank's tasks have"


def add_new_bank(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a new bank."""
    plain = LanguageSettings("")
    parser.add_argument("--model", metavar="PATH", help="base model: a Hugging Face folder or a .gguf file")
    new = parser.add_argument_group("of a new bank")
    new.add_argument("--method", choices=NAMES, help=f"how tasks share (default: {plain.method})")
    new.add_argument("--rank", type=whole, metavar="R", help=f"rank of every update (default: {plain.rank})")
    new.add_argument("--alpha", type=number, metavar="A", help=f"scale is alpha / rank (default: {plain.alpha:g})")
    new.add_argument("--num-basis", type=whole, metavar="K", help=f"bases of share (default: {plain.num_basis})")
    new.add_argument("--first-layer", type=int, metavar="L", help="first adapted layer (default: the last third)")
    new.add_argument("--targets", action="append", metavar="REGEX", help="kernels to adapt (default: all from L on)")
    new.add_argument(
        "--max-length", type=whole, metavar="N", help=f"tokens of an example (default: {plain.max_length})"
    )


def settings_of(args: argparse.Namespace) -> LanguageSettings:
    """The bank's settings, or those of a new one; a bank without a task, or a training in flight, takes any.

    Raises:
        InputError: a new bank has no model, or options differ from what a bank's tasks have.
    """
    given = {name: getattr(args, name) for name in OF_BANK if getattr(args, name) is not None}
    if "targets" in given:
        given["targets"] = tuple(given["targets"])
    if not is_language_bank(args.bank):
        if args.model is None:
            got, fix = f"no bank {args.bank}, and no model", "pass --model PATH"
            raise InputError(message("--model", got=got, expected="the base model of a new bank", fix=fix))
        return LanguageSettings(args.model, **given)
    known = dataclasses.asdict(read_settings(args.bank))
    changed = [name for name, value in given.items() if value != known[name]]
    if changed and (owner := _fixed_by(args)) is not None:
        expected, fix = f"{known[changed[0]]}, as {owner}", "leave it out, or make another bank"
        if owner != _TASKS:
            fix = "leave it out, or give that training up: --restart"
        raise InputError(message(OF_BANK[changed[0]], got=given[changed[0]], expected=expected, fix=fix))
    return LanguageSettings(**{**known, **given})


def _fixed_by(args: argparse.Namespace) -> str | None:
    """What the bank's settings are fixed by; None while they are free."""
    from share_jax.checkpoint.checkpoint import open_checkpoint  # loads JAX
    from share_jax.checkpoint.manifest import exists

    store = open_checkpoint(args.bank) if exists(Path(args.bank)) else None
    if store is None or store.names:
        return None if store is None else _TASKS
    given_up = store.manifest.inflight is None or getattr(args, "restart", False)
    return None if given_up else "a training that was broken off has"
