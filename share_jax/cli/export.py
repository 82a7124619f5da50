"""`share-jax export OUT TASK -o DIR`: one task as a PEFT folder."""

import argparse
import time

from share_jax.adapter_set.store import read_set
from share_jax.cli.options import add_output, emit
from share_jax.cli.output_folder import check_output
from share_jax.cli.report import megabytes
from share_jax.formats.format import writer
from share_jax.storage.untrusted import publish
from share_jax.subspace.state import factors_of

EXAMPLE = "share-jax export shared cola -o cola-adapter --dtype bf16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="OUT", help="the set")
    parser.add_argument("task", metavar="TASK", help="the task")
    add_output(parser, "the adapter")
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16"), help="of the factors (default: the original's)")
    parser.add_argument("--base-model", metavar="NAME", help="base_model_name_or_path to write")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    out = check_output(args.output, args.overwrite, [args.set])
    done = read_set(args.set)
    entry = done.task(args.task)

    config = dict(done.manifest.configs[entry.config])
    if args.base_model is not None:
        config["base_model_name_or_path"] = args.base_model
    dtype = args.dtype or entry.dtype
    adapter = factors_of(done.state, args.task)
    with publish(out) as temp:
        extras = done.extras(args.task)
        config = writer("PEFT")(temp, adapter, config, extras, entry.metadata, dtype)
        size = sum(path.stat().st_size for path in temp.iterdir())
    data = {
        "task": args.task,
        "base_model": config.get("base_model_name_or_path"),
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "dtype": dtype,
        "modules": len(adapter),
        "uncompressed_tensors": len(extras),
        "relative_error": entry.relative_error,
        "bytes": size,
        "seconds": time.perf_counter() - begin,
    }
    emit(args, data, lambda: f"{args.output}: {args.task}, rank {data['rank']}, {dtype}, {megabytes(size)}")
    return 0
