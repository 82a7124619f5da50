"""`share-jax export SET_OR_BANK TASK -o DIR`: one task of a set, or of a language model's bank, as a PEFT folder."""

import argparse
import math
import time
from pathlib import Path

from share_jax import language
from share_jax.adapter_set.store import read_set
from share_jax.cli.options import add_output, emit
from share_jax.cli.output_folder import check_output, check_outputs
from share_jax.cli.report import megabytes
from share_jax.errors import InputError, message
from share_jax.formats.format import writer
from share_jax.formats.peft import open_adapter
from share_jax.language.folder import is_language_bank
from share_jax.storage.untrusted import publish
from share_jax.subspace.error_bounds import relative_change
from share_jax.subspace.state import factors_of

EXAMPLE = "share-jax export shared cola -o cola-adapter --dtype bf16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET_OR_BANK", help="the set, or a language model's bank")
    parser.add_argument("task", nargs="?", metavar="TASK", help="the task")
    parser.add_argument("--all", action="store_true", help="every task of a bank, each in a folder of DIR")
    add_output(parser, "the adapter")
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16"), help="dtype of factors (default: the original's)")
    parser.add_argument("--model", metavar="PATH", help="base model of a bank, where it has moved")
    parser.add_argument("--base-model", metavar="NAME", help="base_model_name_or_path to write")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    if args.all == (args.task is not None):
        got = "both" if args.all else "neither"
        raise InputError(message("TASK and --all", got=got, expected="one of them", fix="name a task, or pass --all"))
    if is_language_bank(args.set):
        return _export_bank(args, begin)
    if args.model is not None:
        fix = "leave it out, or pass --base-model"
        raise InputError(message("--model", got="a compressed set", expected="a language model's bank", fix=fix))
    if args.all:
        fix = "name a task"
        raise InputError(message("--all", got="a compressed set", expected="a language model's bank", fix=fix))
    out = check_output(args.output, args.overwrite, [args.set])
    done = read_set(args.set)
    entry = done.task(args.task)

    config = dict(done.manifest.configs[entry.config])
    if args.base_model is not None:
        config["base_model_name_or_path"] = args.base_model
    dtype = args.dtype or entry.dtype
    adapter = factors_of(done.state, args.task)
    with publish(out, overwrite=args.overwrite) as temp:
        extras = done.extras(args.task)
        config = writer("PEFT")(temp, adapter, config, extras, entry.metadata, dtype, done.manifest.forms)
        size = sum(path.stat().st_size for path in temp.iterdir())
        rounding = relative_change(adapter, open_adapter(temp, args.task).adapter())
    error = math.hypot(entry.relative_error, rounding)
    data = {
        "task": args.task,
        "base_model": config.get("base_model_name_or_path"),
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "dtype": dtype,
        "modules": len(adapter),
        "uncompressed_tensors": len(extras),
        "relative_error": error,
        "set_error": entry.relative_error,
        "rounding_error": rounding,
        "bytes": size,
        "seconds": time.perf_counter() - begin,
    }

    def text() -> str:
        line = f"{args.output}: {args.task}, rank {data['rank']}, {dtype}, {megabytes(size)}, error {error:.2g}"
        cost = f" ({rounding:.2g} of it is {dtype}'s rounding; --dtype f32 leaves {entry.relative_error:.2g})"
        return line + (cost if dtype != "f32" and rounding > entry.relative_error else "")

    emit(args, data, text)
    return 0


def _export_bank(args: argparse.Namespace, begin: float) -> int:
    """Exports one task of a bank, or each; the factors are float32."""
    if args.dtype not in (None, "f32"):
        fix = "leave --dtype out"
        raise InputError(message("--dtype", got=args.dtype, expected="f32, for a bank", fix=fix))
    opened, base = language.open_language_bank(args.set, args.model), args.base_model
    if args.all:
        check_outputs(args.output, opened.bank.names, args.overwrite, [args.set])
        made = language.export_tasks(opened, args.output, base_model=base, overwrite=args.overwrite)
    else:
        out = check_output(args.output, args.overwrite, [args.set])
        made = {args.task: language.export_task(opened, args.task, out, base_model=base)}
    tasks = {name: {"folder": str(place), "bytes": _size(place)} for name, place in made.items()}
    data = {"tasks": tasks, "dtype": "f32", "seconds": time.perf_counter() - begin}
    emit(args, data, lambda: "\n".join(f"{t['folder']}: {name}, {megabytes(t['bytes'])}" for name, t in tasks.items()))
    return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
