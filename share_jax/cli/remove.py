"""`share-jax remove OUT TASK...`: tasks out of a set."""

import argparse
import time
from dataclasses import replace

from share_jax.adapter_set.encoding import without_tasks
from share_jax.adapter_set.store import changed_set, task_entry
from share_jax.cli.options import emit
from share_jax.cli.report import summary, text
from share_jax.errors import TaskError, message
from share_jax.subspace.removal import remove

EXAMPLE = "share-jax remove shared old-task"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="OUT", help="the set")
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="tasks to remove")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    with changed_set(args.set) as (old, writer):
        gone = list(dict.fromkeys(args.tasks))
        for task in gone:
            task_entry(old.manifest, task)
        if len(gone) == len(old.manifest.tasks):
            raise TaskError(
                message("remove", got="every task", expected="at least one to stay", fix="delete the folder instead")
            )
        state = old.state
        for task in gone:
            state = remove(state, task)
        tasks = {name: entry for name, entry in old.manifest.tasks.items() if name not in gone}
        used = {entry.config for entry in tasks.values()}
        configs = {name: config for name, config in old.manifest.configs.items() if name in used}
        places = [old.state.index(task) for task in gone]
        stored = without_tasks({n: old.stored[n] for n in state.layers}, places, len(old.manifest.tasks))
        done = writer.write(replace(old.manifest, tasks=tasks, configs=configs), state, stored)
    data = {"removed": gone, **summary(done.folder, done, time.perf_counter() - begin)}
    emit(args, data, lambda: text(args.set, data))
    return 0
