"""`share-jax add SET DIR...`: more adapters into a set, all in one merge."""

import argparse
import time

from share_jax.adapter_set.build import adapters_of, ready_to_merge
from share_jax.adapter_set.contents import contents_of
from share_jax.adapter_set.store import changed_set
from share_jax.cli.inputs import check_no_bank, open_inputs
from share_jax.cli.options import Progress, add_task_names, emit, error_limit, warn
from share_jax.cli.report import summary, text
from share_jax.formats.base_model import common_base, with_base
from share_jax.formats.open import check_common_shapes
from share_jax.formats.same_modules import two_names
from share_jax.subspace.merging import merge
from share_jax.subspace.rank_choice import Choice

EXAMPLE = "share-jax add shared adapters/new --max-error 0.05"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET", help="the set")
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="adapters of any known format, as folders or files, or banks"
    )
    add_task_names(parser)
    parser.add_argument(
        "--max-error",
        type=error_limit,
        metavar="E",
        help="grow k so that no task's error bound passes E (stored in the set)",
    )
    parser.add_argument(
        "--base-model",
        metavar="NAME",
        help="the base model of all inputs, whatever they name, and of a set that names none",
    )
    parser.add_argument("--names", metavar="FILE", help="JSON: PyTorch's name of every module by its path in a bank")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    progress = Progress(args)
    check_no_bank(args.set)
    with changed_set(args.set) as (old, writer):
        manifest = old.manifest
        sources = with_base(open_inputs(args.folders, manifest.tasks, args.names, args.name), args.base_model)
        base = common_base(sources, args.base_model, [manifest.base_model] if manifest.tasks else [])
        shapes = {name: (e.d_in, e.d_out) for name, e in manifest.layers.items()}
        check_common_shapes(sources, shapes, manifest.forms)
        warning = two_names(sources, shapes)
        limit = manifest.limit if args.max_error is None else args.max_error
        choice = dict(manifest.choice)
        if args.max_error is not None and choice.get("max_error") is not None:
            choice["max_error"] = args.max_error
        adapters = {}
        for name, adapter in adapters_of(sources, manifest.pseudo_rank):
            adapters[name] = adapter
            progress("read", len(adapters), len(sources))

        state = merge(ready_to_merge(old.state, manifest.storage), adapters, Choice(**choice), limit=limit)
        settings = manifest.settings(base_model=base, limit=limit, choice=choice)
        done = writer.write(contents_of(settings, state, sources, manifest))
    progress.close()
    data = {
        "added": [source.name for source in sources],
        "warnings": warn(warning),
        **summary(done.folder, done, time.perf_counter() - begin),
    }
    emit(args, data, lambda: text(args.set, data))
    return 0
