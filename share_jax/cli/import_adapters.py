"""`share-jax import BANK DIR...`: PEFT adapters become tasks of a language model's bank, which may be new."""

import argparse
from typing import Any

from share_jax import language
from share_jax.cli.bank_options import add_new_bank, settings_of
from share_jax.cli.options import add_task_names, emit

EXAMPLE = "share-jax import bank adapters/sql adapters/python"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bank", metavar="BANK", help="the folder of the tasks")
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="PEFT adapters of the bank's model; each becomes a task"
    )
    add_task_names(parser)
    add_new_bank(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    opened = language.open_language_bank(args.bank, args.model, settings_of(args))
    done = language.import_tasks(opened, args.folders, args.name)
    new = done.bank.names[len(opened.bank.names) :]
    data: dict[str, Any] = {"bank": str(args.bank), "new": list(new), "tasks": list(done.bank.names)}
    report = getattr(done.bank, "report", None)  # of share
    bounds = {} if report is None else {name: each.error_bound for name, each in report().items()}
    if bounds:
        data["error_bounds"] = bounds
    text = f"{args.bank}: {', '.join(new)} imported, {len(done.bank.names)} tasks in all"
    worst = f"; no task's update is off by more than {max(bounds.values()):.2g} of its norm" if bounds else ""
    emit(args, data, lambda: text + worst)
    return 0
