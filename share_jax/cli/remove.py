"""`share-jax remove OUT TASK...`: tasks out of a set."""

import argparse
import time
from typing import Any

from share_jax.cli.options import command, emit


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = command(
        subparsers,
        "remove",
        run,
        "Remove tasks from a set; the others do not change.",
        "share-jax remove shared old-task",
    )
    parser.add_argument("set", metavar="OUT", help="the set")
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="tasks to remove")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from share_jax.adapter_set.contents import without_tasks
    from share_jax.adapter_set.store import changed_set, task_entry
    from share_jax.cli.report import summary, text
    from share_jax.errors import TaskError, message

    begin = time.perf_counter()
    with changed_set(args.set) as (old, writer):
        gone = list(dict.fromkeys(args.tasks))
        for task in gone:
            task_entry(old.manifest, task)
        if len(gone) == len(old.manifest.tasks):
            raise TaskError(
                message("remove", got="every task", expected="at least one to stay", fix="delete the folder instead")
            )
        done = writer.write(without_tasks(old.manifest, old.state, old.stored, gone))
    data = {"removed": gone, **summary(done.folder, done, time.perf_counter() - begin)}
    emit(args, data, lambda: text(args.set, data))
    return 0
