"""`share-jax recompress SET`: the bases of a set chosen anew for the tasks that are in it."""

import argparse
import time

from share_jax.adapter_set.build import ready_to_merge
from share_jax.adapter_set.contents import contents_of
from share_jax.adapter_set.store import changed_set, stored_bytes
from share_jax.cli.inputs import check_no_bank
from share_jax.cli.options import add_size, choice_of, emit
from share_jax.cli.report import megabytes, summary, text
from share_jax.subspace.rank_choice import Choice
from share_jax.subspace.removal import recompress

EXAMPLE = "share-jax recompress shared --k 16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET", help="the set; its old version is replaced")
    add_size(
        parser, "smallest k with every task's error bound <= E (stored in the set; without it the stored limit applies)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin, given = time.perf_counter(), choice_of(args)
    check_no_bank(args.set)
    with changed_set(args.set) as (old, writer):
        chosen = given or dict(old.manifest.choice)
        limit = old.manifest.limit if args.max_error is None else args.max_error
        settings = old.manifest.settings(choice=chosen, limit=limit)
        state = recompress(ready_to_merge(old.state, settings.storage), Choice(**chosen), limit=limit)
        bytes_before = sum(stored_bytes(old.folder, old.manifest).values())
        done = writer.write(contents_of(settings, state, old=old.manifest))
    data = {"bytes_before": bytes_before, "limit": limit, **summary(done.folder, done, time.perf_counter() - begin)}
    change = f"{megabytes(bytes_before)} before, {megabytes(data['bytes_out'])} now"
    if given and args.max_error is None and limit is not None:
        change += f"\nthe set's limit of {limit:g} is held, by more columns where it takes them; --max-error changes it"
    emit(args, data, lambda: f"{text(args.set, data)}\n\n{change}")
    return 0
