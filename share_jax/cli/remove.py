"""`share-jax remove SET TASK...`: tasks out of a set."""

import argparse
import time

from share_jax.adapter_set.contents import without_tasks
from share_jax.adapter_set.store import changed_set, task_entry
from share_jax.cli.inputs import check_no_bank
from share_jax.cli.options import emit
from share_jax.cli.report import summary, text
from share_jax.errors import TaskError, message

EXAMPLE = "share-jax remove shared old-task"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET", help="the set")
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="tasks to remove")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    check_no_bank(args.set)
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
