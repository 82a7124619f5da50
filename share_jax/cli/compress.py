"""`share-jax compress DIR... -o OUT`: many adapters into one set."""

import argparse
import time
from dataclasses import replace

from share_jax.adapter_set.build import build_state
from share_jax.adapter_set.contents import contents_of
from share_jax.adapter_set.manifest import Settings
from share_jax.adapter_set.store import new_set
from share_jax.cli.inputs import open_inputs
from share_jax.cli.options import Progress, add_output, add_size, choice_of, emit, whole
from share_jax.cli.output_folder import check_output
from share_jax.cli.report import summary, text
from share_jax.formats.open import check_common_shapes, common_base

EXAMPLE = "share-jax compress adapters/* -o shared --k 32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="PEFT adapters, folders of lorashare or vlora, or banks"
    )
    add_output(parser, "the set")
    add_size(parser, "smallest k with every task's relative error <= E")
    parser.add_argument("--geometry", choices=("columns", "flat", "auto"), default="columns")
    parser.add_argument("--storage", choices=("f32", "bf16", "int8"), default="f32")
    parser.add_argument("--pseudo-rank", type=whole, metavar="P", help="cut every adapter to this rank first")
    parser.add_argument("--base-model", metavar="NAME", help="base model name for inputs without one (vlora's, banks)")
    parser.add_argument("--names", metavar="FILE", help="JSON: PyTorch's name of every module by its path in a bank")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    out = check_output(args.output, args.overwrite, args.folders)
    sources = open_inputs(args.folders, names=args.names)
    base = common_base(sources, given=args.base_model)
    check_common_shapes(sources, {})
    progress = Progress(args)
    settings = Settings(base, args.storage, args.geometry, choice_of(args), args.max_error, args.pseudo_rank)
    contents = contents_of(settings, build_state(sources, settings, progress), sources)
    with new_set(out) as writer:
        done = writer.write(contents)
    progress.close()
    data = summary(out, replace(done, folder=out), time.perf_counter() - begin)
    emit(args, data, lambda: text(args.output, data))
    return 0
